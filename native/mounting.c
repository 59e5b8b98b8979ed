/* The system calls are made by number, and their structures spelt out: a libc's headers may be older than the kernel. */
#include "mounting.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture. */
#define CALL_OPEN_TREE 428
#define CALL_MOVE_MOUNT 429
#define CALL_FSOPEN 430
#define CALL_FSCONFIG 431
#define CALL_FSMOUNT 432
#define CALL_OPENAT2 437
#define CALL_MOUNT_SETATTR 442

enum { OF_OPEN_TREE_CLONE = 1, OF_AT_RECURSIVE = 0x8000, OF_FSOPEN_CLOEXEC = 1, OF_FSMOUNT_CLOEXEC = 1 };
enum { CONFIG_FLAG = 0, CONFIG_STRING = 1, CONFIG_CREATE = 6 };
enum { MOVE_FROM_DESCRIPTOR = 4, MOVE_TO_DESCRIPTOR = 0x40 };
enum { NO_MAGIC_LINKS = 2, NO_LINKS = 4, BELOW = 8, MOST_ATTEMPTS = 100 };

struct attributes {
    uint64_t set, clear, propagation, user_namespace;
};

struct how_to_open {
    uint64_t flags, mode, resolve;
};

static bool set_attributes(int mount, unsigned flags, unsigned attributes)
{
    const struct attributes wanted = {.set = attributes};
    return syscall(CALL_MOUNT_SETATTR, mount, "", flags | AT_EMPTY_PATH, &wanted, sizeof wanted) == 0;
}

void drop(int descriptor)
{
    int error = errno;
    if (descriptor >= 0)
        close(descriptor);
    errno = error;
}

int make_folder(int folder, const char *name, mode_t mode)
{
    if (mkdirat(folder, name, mode) != 0)
        return -1;
    return openat(folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int close_with_error(int descriptor)
{
    drop(descriptor);
    return -1;
}

int copy_mount(int source, unsigned attributes)
{
    int copy = (int)syscall(CALL_OPEN_TREE, source, "",
                            OF_OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | OF_AT_RECURSIVE);
    if (copy >= 0 && !set_attributes(copy, OF_AT_RECURSIVE, attributes))
        return close_with_error(copy);
    return copy;
}

int make_file_system(const char *kind, unsigned attributes, const char *const *options)
{
    int context = (int)syscall(CALL_FSOPEN, kind, OF_FSOPEN_CLOEXEC);
    if (context < 0)
        return -1;
    for (; *options != NULL; options += 2) {
        int command = options[1] == NULL ? CONFIG_FLAG : CONFIG_STRING;
        if (syscall(CALL_FSCONFIG, context, command, options[0], options[1], 0) != 0)
            return close_with_error(context);
    }
    if (syscall(CALL_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0) != 0)
        return close_with_error(context);
    int mount = (int)syscall(CALL_FSMOUNT, context, OF_FSMOUNT_CLOEXEC, attributes);
    close_with_error(context);
    return mount;
}

int make_memory(uint64_t bytes, uint64_t files, mode_t mode)
{
    char size[24], inodes[24], permissions[8];
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)files);
    snprintf(permissions, sizeof permissions, "%o", (unsigned)(mode & 07777));
    const char *const options[] = {"size", size, "nr_inodes", inodes, "mode", permissions, NULL};
    return make_file_system("tmpfs", MOUNTED_NO_SET_USER_ID | MOUNTED_NO_DEVICES, options);
}

bool put_mount(int mount, int place)
{
    return syscall(CALL_MOVE_MOUNT, mount, "", place, "", MOVE_FROM_DESCRIPTOR | MOVE_TO_DESCRIPTOR) == 0;
}

bool lock_mount(int place)
{
    return set_attributes(place, 0, MOUNTED_READ_ONLY);
}

int find_place(int root, const char *path)
{
    const struct how_to_open how = {
        .flags = O_PATH | O_CLOEXEC,
        .resolve = NO_LINKS | NO_MAGIC_LINKS | BELOW,
    };
    const char *below = path + strspn(path, "/");
    int place = -1, attempts = 0;
    do { /* EAGAIN: something was renamed meanwhile, and the kernel could not be sure */
        place = (int)syscall(CALL_OPENAT2, root, *below == '\0' ? "." : below, &how, sizeof how);
    } while (place < 0 && errno == EAGAIN && ++attempts < MOST_ATTEMPTS);
    return place;
}

int find_parent(int root, const char *path, const char **name)
{
    char above[PATH_MAX];
    const char *last = strrchr(path, '/') + 1;
    memcpy(above, path, (size_t)(last - path));
    above[last - path] = '\0';
    *name = last;
    return find_place(root, above);
}

int make_directory(int root, const char *path, mode_t mode)
{
    char part[PATH_MAX];
    int place = find_place(root, path);
    if (place >= 0 || errno != ENOENT)
        return place;
    strcpy(part, path);
    for (char *end = part + 1; end != NULL; end++) {
        const char *name;
        end = strchr(end, '/');
        if (end != NULL)
            *end = '\0';
        int parent = find_parent(root, part, &name);
        if (parent < 0)
            return -1;
        /* What is there already, a link even, is judged when it is looked for. */
        if (mkdirat(parent, name, end == NULL ? mode : 0755) != 0 && errno != EEXIST)
            return close_with_error(parent);
        close(parent);
        if (end == NULL)
            break;
        *end = '/';
    }
    return find_place(root, path);
}
