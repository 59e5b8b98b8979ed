/* Small files in one piece: those in which the kernel tells and takes single values (/proc, control groups). */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Reads the beginning of a file, NUL-terminated; `name` is looked up in the directory `folder` (AT_FDCWD: as usual).
 * Returns its length; -1 and errno if it could not be read. */
ssize_t read_text(int folder, const char *name, char *text, size_t size);

/* Writes a text to a file that is there, by one write(): the kernel takes the value of such a file whole. False and
 * errno if it did not. */
bool write_text(int folder, const char *name, const char *text);

/* Closes a descriptor; errno stays. */
void close_quietly(int descriptor);

#endif
