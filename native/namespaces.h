/* Namespaces that a command has to itself, and what is mounted in them. They go with the command.
 *
 * These functions change this process, which then becomes the command. They return false with errno set; the process is
 * of no use then.
 */
#ifndef NAMESPACES_H
#define NAMESPACES_H

#include <stdbool.h>
#include <sys/types.h>

struct user {
    uid_t uid;
    gid_t gid;
};

/* In a new user namespace: that its only user is `inside`, and `outside` in the one around it. `proc`: /proc. */
bool map_user(int proc, const struct user *inside, const struct user *outside);

/* From outside, by root: that all users and groups have the same numbers in the new user namespace of a process as in
 * ours. */
bool map_everybody(pid_t process);

/* In a new mount namespace: that no mount made elsewhere appears in it, and none of its own elsewhere. */
bool cut_propagation(void);

/* In a new network namespace: that what listens on 127.0.0.1 can be reached there. */
bool raise_loopback(void);

/* A mount namespace that no mount to come propagates to. Who may not make one gets a user namespace around it, in
 * which the process stays who it is. */
bool make_mount_namespace(void);

/* A layer in memory over `directory`/rootfs, at `directory`/layer/root, of `size` bytes (digits) and a bounded number
 * of files. The working directory becomes `directory`. */
bool make_overlay(const char *directory, const char *size);

#endif
