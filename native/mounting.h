/* Mounts by descriptor (Linux 5.12): what is mounted, and the place that it gets, are both held while it happens, so
 * that no path can come to lead elsewhere in between.
 *
 * All set errno where they fail.
 */
#ifndef MOUNTING_H
#define MOUNTING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What holds for a mount; the kernel's MOUNT_ATTR_*. */
enum {
    MOUNTED_READ_ONLY = 1,
    MOUNTED_NO_SET_USER_ID = 2,
    MOUNTED_NO_DEVICES = 4,
    MOUNTED_NO_PROGRAMS = 8,
};

/* A mount of its own, at no place yet, of what `source` (O_PATH is enough) is in this mount namespace, with all that is
 * mounted below it; `attributes` are added to each of them. A descriptor, or -1. */
int copy_mount(int source, unsigned attributes);

/* An empty directory in memory, at no place yet. */
int make_memory(uint64_t bytes, uint64_t files, mode_t mode);

/* A file system of another kind, with options ("name", "value", ..., NULL; a value NULL is a flag). */
int make_file_system(const char *kind, unsigned attributes, const char *const *options);

/* Puts a mount where `place` is. */
bool put_mount(int mount, int place);

/* What is mounted at the place, and that alone, becomes read-only as well. */
bool lock_mount(int place);

/* The path below `root`, which stands for "/"; no link is followed. A descriptor (O_PATH), or -1. */
int find_place(int root, const char *path);

/* The same for what is above the path's last name, which `name` gets. */
int find_parent(int root, const char *path, const char **name);

/* The directory at the path, made with those above it where it is missing. */
int make_directory(int root, const char *path, mode_t mode);

/* A directory of that name, which must not be there yet, right in the folder. */
int make_folder(int folder, const char *name, mode_t mode);

/* Closes a descriptor, unless it is negative; errno stays. */
void drop(int descriptor);

#endif
