/* A base in memory becomes the root first, with the old one in a directory of it. On the base are also the layer of an
 * overlay and the files with a content, since only what the namespace has somewhere can be mounted; and the new root,
 * which goes to the top in the end. The base goes then, and all that is left on it.
 */
#include "arrange.h"

#include "devices.h"
#include "memory.h"
#include "mounting.h"
#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SAFE = MOUNTED_NO_SET_USER_ID | MOUNTED_NO_DEVICES };
enum { BASE_BYTES = 1024 * 1024, BASE_FILES = 3 * MOST_MOUNTS, LONGEST_CONTENT = 1024 * 1024 * 1024 };

struct site {
    int old;  /* the old root */
    int base;
    int root; /* the new one */
    int contents;
    int nothing[2]; /* an empty file and an empty directory of the base; -1: not there yet */
};

bool find_sources(struct layout *layout)
{
    for (size_t index = 0; index < layout->entry_count; index++) {
        struct entry *entry = &layout->entries[index];
        if (entry->descriptor == NO_DESCRIPTOR || entry->kind == MOUNT_CONTENT)
            continue;
        char name[32], path[PATH_MAX];
        snprintf(name, sizeof name, "/proc/self/fd/%d", entry->descriptor);
        ssize_t length = readlink(name, path, sizeof path);
        if (length < 0)
            return false;
        if (path[0] != '/' || length == (ssize_t)sizeof path) { /* a pipe, or longer than any path */
            errno = EINVAL;
            return false;
        }
        entry->source = keep_text(path, (size_t)length);
        if (entry->source == NULL)
            return false;
    }
    return true;
}

static bool is_directory(int descriptor)
{
    struct stat found;
    return fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode);
}

/* What the descriptor holds, as this namespace has it: a mount of another one cannot be copied. -1 and ESTALE where
 * something else is at its path by now. */
static int find_again(const struct site *site, const struct entry *entry)
{
    struct stat held, found;
    int again = find_place(site->old, entry->source);
    if (again < 0) {
        if (errno == ENOENT || errno == ELOOP || errno == ENOTDIR)
            errno = ESTALE;
        return -1;
    }
    if (fstat(entry->descriptor, &held) == 0 && fstat(again, &found) == 0) {
        if (held.st_dev == found.st_dev && held.st_ino == found.st_ino &&
            (held.st_mode & S_IFMT) == (found.st_mode & S_IFMT))
            return again;
        errno = ESTALE;
    }
    drop(again);
    return -1;
}

static const char *step_of_source(void)
{
    return errno == ESTALE ? "mounts" : "mount";
}

/* A mount of what the descriptor holds, at no place yet; -1. */
static int copy_of(const struct site *site, const struct entry *entry, unsigned attributes)
{
    int again = find_again(site, entry);
    int copy = again < 0 ? -1 : copy_mount(again, attributes);
    drop(again);
    return copy;
}

static int make_file(int root, const char *path)
{
    const char *name;
    char above[PATH_MAX];
    strcpy(above, path);
    *(strrchr(above, '/') + 1) = '\0';
    drop(make_directory(root, above, 0755));
    int parent = find_parent(root, path, &name);
    if (parent < 0)
        return -1;
    drop(openat(parent, name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0444));
    drop(parent);
    return find_place(root, path);
}

/* Where the entry goes. */
static int place_of(const struct site *site, const struct entry *entry, bool wants_directory)
{
    int place = find_place(site->root, entry->path);
    if (place >= 0 || errno != ENOENT || (entry->flags & MOUNT_MAKES_PLACE) == 0)
        return place;
    return wants_directory ? make_directory(site->root, entry->path, 0755) : make_file(site->root, entry->path);
}

/* Consumes the mount. */
static const char *put(const struct site *site, const struct entry *entry, int mount, bool wants_directory)
{
    if (mount < 0)
        return "mount";
    int place = place_of(site, entry, wants_directory);
    const char *step = place < 0 ? "place" : put_mount(mount, place) ? NULL : "mount";
    drop(place);
    drop(mount);
    return step;
}

static const char *put_bind(const struct site *site, const struct entry *entry)
{
    unsigned access = (entry->flags & MOUNT_IS_WRITABLE) != 0 ? 0 : MOUNTED_READ_ONLY;
    int copy = copy_of(site, entry, SAFE | access);
    if (copy < 0)
        return step_of_source();
    return put(site, entry, copy, is_directory(copy));
}

static const char *put_device_files(const struct site *site, const struct entry *entry, const char **where)
{
    int place = place_of(site, entry, true);
    if (place < 0)
        return "place";
    bool good = put_devices(site->old, place, entry->bytes, (entry->flags & MOUNT_HAS_TERMINALS) != 0, where);
    drop(place);
    return good ? NULL : "devices";
}

static const char *put_link(const struct site *site, const struct entry *entry)
{
    const char *name;
    char above[PATH_MAX];
    strcpy(above, entry->path);
    *(strrchr(above, '/') + 1) = '\0';
    drop(make_directory(site->root, above, 0755));
    int parent = find_parent(site->root, entry->path, &name);
    if (parent < 0)
        return "place";
    bool good = symlinkat(entry->target, parent, name) == 0 || errno == EEXIST;
    drop(parent);
    return good ? NULL : "place";
}

static bool copy_content(int from, int to)
{
    static char piece[64 * 1024];
    struct stat found;
    if (fstat(from, &found) != 0)
        return false;
    if (!S_ISREG(found.st_mode) || found.st_size > LONGEST_CONTENT) {
        errno = EFBIG;
        return false;
    }
    for (off_t done = 0; done < found.st_size;) {
        ssize_t count = pread(from, piece, sizeof piece, done);
        if (count <= 0) {
            errno = count == 0 ? EIO : errno;
            return false;
        }
        for (ssize_t written = 0; written < count;) {
            ssize_t more = write(to, piece + written, (size_t)(count - written));
            if (more < 0)
                return false;
            written += more;
        }
        done += count;
    }
    return true;
}

/* A mount, at no place yet, of a read-only file with what `from` holds, or an empty one; -1. */
static int make_content(struct site *site, int from, mode_t mode)
{
    char name[24];
    snprintf(name, sizeof name, "content%d", site->contents++);
    int file = openat(site->base, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    bool good = (from == NO_DESCRIPTOR || copy_content(from, file)) && fchmod(file, mode) == 0;
    drop(file); /* a writer, before the mount is read-only */
    int source = good ? openat(site->base, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
    int copy = source < 0 ? -1 : copy_mount(source, SAFE | MOUNTED_READ_ONLY);
    drop(source);
    return copy;
}

static const char *put_content(struct site *site, const struct entry *entry)
{
    int copy = make_content(site, entry->descriptor, (mode_t)entry->mode);
    return copy < 0 ? "content" : put(site, entry, copy, false);
}

/* What /proc tells of the whole machine, and root may read without any capability: what the keys of its users are called,
 * when its timers and interrupts come (of a keyboard, say), which disks it has. Container engines hide the same, and
 * what only a capability opens besides. */
static const char *const of_the_machine[] = {
    "acpi", "asound", "interrupts", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats",
};

/* A mount, at no place yet, of an empty file or directory of the base; -1. */
static int make_nothing(struct site *site, bool is_folder)
{
    int *nothing = &site->nothing[is_folder];
    if (*nothing < 0)
        *nothing = is_folder ? make_folder(site->base, "folder", 0555)
                             : openat(site->base, "file", O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    return *nothing < 0 ? -1 : copy_mount(*nothing, SAFE | MOUNTED_READ_ONLY);
}

static bool hide(struct site *site, const char *path)
{
    int place = find_place(site->root, path);
    if (place < 0)
        return errno == ENOENT; /* a kernel without it */
    int cover = make_nothing(site, is_directory(place));
    bool good = cover >= 0 && put_mount(cover, place);
    drop(cover);
    drop(place);
    return good;
}

static bool hide_the_machine(struct site *site, const char *proc)
{
    char path[PATH_MAX + 32];
    for (size_t index = 0; index < sizeof of_the_machine / sizeof *of_the_machine; index++) {
        snprintf(path, sizeof path, "%s/%s", proc, of_the_machine[index]);
        if (!hide(site, path))
            return false;
    }
    return true;
}

static const char *put_proc(struct site *site, const struct entry *entry)
{
    static const char *const options[] = {NULL};
    unsigned access = (entry->flags & MOUNT_LOCKS_PROC) != 0 ? MOUNTED_READ_ONLY : 0;
    int mount = make_file_system("proc", SAFE | MOUNTED_NO_PROGRAMS | access, options);
    const char *step = mount < 0 ? "proc" : put(site, entry, mount, true);
    return step == NULL && !hide_the_machine(site, entry->path) ? "proc" : step;
}

static const char *lock_place(const struct site *site, const struct entry *entry)
{
    int place = find_place(site->root, entry->path);
    if (place < 0)
        return "place";
    bool good = lock_mount(place);
    drop(place);
    return good ? NULL : "mount";
}

static const char *put_directory(const struct site *site, const struct entry *entry)
{
    int place = make_directory(site->root, entry->path, (mode_t)entry->mode);
    drop(place);
    return place < 0 ? "place" : NULL;
}

static const char *put_entry(struct site *site, const struct entry *entry, const char **where)
{
    switch (entry->kind) {
    case MOUNT_BIND:
        return put_bind(site, entry);
    case MOUNT_MEMORY:
        return put(site, entry, make_memory(entry->bytes, entry->files, (mode_t)entry->mode), true);
    case MOUNT_PROC:
        return put_proc(site, entry);
    case MOUNT_DEVICES:
        return put_device_files(site, entry, where);
    case MOUNT_LINK:
        return put_link(site, entry);
    case MOUNT_DIRECTORY:
        return put_directory(site, entry);
    case MOUNT_CONTENT:
        return put_content(site, entry);
    case MOUNT_READ_ONLY:
        return lock_place(site, entry);
    default: /* a root */
        errno = EINVAL;
        return "root";
    }
}

/* An overlay over what the entry's descriptor holds, at no place yet; -1. Without `userxattr` overlayfs may write none
 * of its marks in a user namespace, and a directory that was removed would come back with its content. */
static int make_overlay_root(const struct site *site, const struct entry *entry)
{
    int lower = find_again(site, entry);
    int place = lower < 0 ? -1 : make_folder(site->base, "layer", 0755);
    int layer = place < 0 ? -1 : make_memory(entry->bytes, entry->files, 0755);
    int upper = -1, work = -1, overlay = -1;
    if (layer >= 0 && put_mount(layer, place)) {
        upper = make_folder(layer, "upper", 0755);
        work = upper < 0 ? -1 : make_folder(layer, "work", 0755);
    }
    if (work >= 0) {
        /* As descriptors: the kernel looks these up as this process, which needs no path to them. */
        char below[40], above[40], aside[40];
        snprintf(below, sizeof below, "/old/proc/self/fd/%d", lower);
        snprintf(above, sizeof above, "/old/proc/self/fd/%d", upper);
        snprintf(aside, sizeof aside, "/old/proc/self/fd/%d", work);
        const char *const options[] = {"userxattr", NULL,  "lowerdir", below, "upperdir",
                                       above,       "workdir", aside,  NULL};
        overlay = make_file_system("overlay", SAFE, options);
    }
    drop(lower);
    drop(place);
    drop(layer);
    drop(upper);
    drop(work);
    return overlay;
}

static int make_root(const struct site *site, const struct entry *entry)
{
    switch (entry->kind) {
    case MOUNT_ROOT_DIRECTORY:
        return copy_of(site, entry, SAFE | MOUNTED_READ_ONLY);
    case MOUNT_ROOT_OVERLAY:
        return make_overlay_root(site, entry);
    default:
        return make_memory(entry->bytes, entry->files, (mode_t)entry->mode);
    }
}

static uint64_t bytes_of_contents(const struct layout *layout)
{
    uint64_t bytes = BASE_BYTES;
    for (size_t index = 0; index < layout->entry_count; index++) {
        const struct entry *entry = &layout->entries[index];
        struct stat found;
        if (entry->kind == MOUNT_CONTENT && entry->descriptor != NO_DESCRIPTOR &&
            fstat(entry->descriptor, &found) == 0 && S_ISREG(found.st_mode) && found.st_size <= LONGEST_CONTENT)
            bytes += ((uint64_t)found.st_size / 4096 + 1) * 4096;
    }
    return bytes;
}

static const char *open_site(struct site *site, const struct layout *layout)
{
    if (!cut_propagation())
        return "private-mounts";
    site->old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    site->base = make_memory(bytes_of_contents(layout), BASE_FILES, 0755);
    if (site->old < 0 || site->base < 0 || !put_mount(site->base, site->old) || mkdirat(site->base, "old", 0755) != 0)
        return "private-mounts";
    if (fchdir(site->base) != 0 || syscall(SYS_pivot_root, ".", "old") != 0)
        return "pivot";
    int place = make_folder(site->base, "root", 0755);
    if (place < 0)
        return "root";
    site->root = make_root(site, &layout->entries[0]);
    const char *step = NULL;
    if (site->root < 0)
        step = errno == ESTALE ? "mounts" : "root";
    else if (!put_mount(site->root, place))
        step = "root";
    drop(place);
    return step;
}

static bool make_it_the_root(const struct site *site)
{
    /* The base comes to lie over the new one, and goes. */
    return fchdir(site->root) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 && fchdir(site->base) == 0 &&
           umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

const char *arrange(const struct layout *layout, const char **where)
{
    struct site site = {.old = -1, .base = -1, .root = -1, .nothing = {-1, -1}};
    mode_t mask = umask(0);
    const char *step = open_site(&site, layout);
    for (size_t index = 1; step == NULL && index < layout->entry_count; index++) {
        *where = layout->entries[index].path;
        step = put_entry(&site, &layout->entries[index], where);
    }
    if (step == NULL) {
        *where = NULL;
        step = make_it_the_root(&site) ? NULL : "pivot";
    }
    umask(mask);
    drop(site.old);
    drop(site.base);
    drop(site.root);
    drop(site.nothing[0]);
    drop(site.nothing[1]);
    return step;
}
