/* Namespaces that a command has to itself, and what is mounted in them. They go with the command.
 *
 * These functions change this process, which then becomes the command. They return false with errno set; the process is
 * of no use then.
 */
#ifndef NAMESPACES_H
#define NAMESPACES_H

#include <stdbool.h>

/* A mount namespace that no mount to come propagates to. Who may not make one gets a user namespace around it, in
 * which the process stays who it is. */
bool make_mount_namespace(void);

/* A layer in memory over `directory`/rootfs, at `directory`/layer/root, of `size` bytes (digits) and a bounded number
 * of files. The working directory becomes `directory`. */
bool make_overlay(const char *directory, const char *size);

#endif
