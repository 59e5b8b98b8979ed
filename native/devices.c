/* The device files are mounted read-only, which does not keep anyone from writing to the devices, but root, who owns the
 * machine's files inside as well, from changing their permissions.
 */
#include "devices.h"

#include "mounting.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The machine has 4,096 terminals, and lets all sandboxes together have three quarters of them. */
#define MOST_TERMINALS "128"

enum { OWN_BYTES = 64 * 1024, OWN_FILES = 64, FILES_OF_SHARED_MEMORY = 64 * 1024 };

struct device {
    const char *path, *name;
    unsigned major, minor;
};

/* The numbers are the kernel's own (admin-guide/devices.txt). */
static const struct device devices[] = {
    {"/dev/null", "null", 1, 3},     {"/dev/zero", "zero", 1, 5},       {"/dev/full", "full", 1, 7},
    {"/dev/random", "random", 1, 8}, {"/dev/urandom", "urandom", 1, 9}, {"/dev/tty", "tty", 5, 0},
};
enum { DEVICES = sizeof devices / sizeof devices[0] };

static const struct {
    const char *name, *target;
} links[] = {
    {"fd", "/proc/self/fd"},
    {"stdin", "/proc/self/fd/0"},
    {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"},
};
enum { LINKS = sizeof links / sizeof links[0] };

static bool put_and_close(int mount, int place)
{
    bool good = mount >= 0 && place >= 0 && put_mount(mount, place);
    drop(mount);
    drop(place);
    return good;
}

static bool put_device(int root, int folder, const struct device *device)
{
    int source = find_place(root, device->path);
    if (source < 0)
        return false;
    struct stat found;
    bool good = fstat(source, &found) == 0;
    if (good && !(S_ISCHR(found.st_mode) && found.st_rdev == makedev(device->major, device->minor))) {
        errno = ENODEV;
        good = false;
    }
    int place = good ? openat(folder, device->name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444) : -1;
    int mount = place < 0 ? -1
                          : copy_mount(source, MOUNTED_READ_ONLY | MOUNTED_NO_SET_USER_ID | MOUNTED_NO_PROGRAMS);
    good = put_and_close(mount, place);
    drop(source);
    return good;
}

/* Who owns the machine's null device could change its permissions through a stream that is one, too: the streams get the
 * one that has just been put here. */
static bool put_null_into_streams(int folder)
{
    const struct device *null = &devices[0];
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++) {
        struct stat found;
        if (fstat(stream, &found) != 0 || !S_ISCHR(found.st_mode) || found.st_rdev != makedev(null->major, null->minor))
            continue;
        int file = openat(folder, null->name, (fcntl(stream, F_GETFL) & O_ACCMODE) | O_CLOEXEC);
        bool good = file >= 0 && dup2(file, stream) >= 0;
        drop(file);
        if (!good)
            return false;
    }
    return true;
}

static bool put_terminals(int folder)
{
    static const char *const options[] = {"ptmxmode", "0666", "mode", "620", "max", MOST_TERMINALS, NULL};
    int place = make_folder(folder, "pts", 0755);
    int mount = place < 0 ? -1 : make_file_system("devpts", MOUNTED_NO_SET_USER_ID | MOUNTED_NO_PROGRAMS, options);
    return put_and_close(mount, place) && symlinkat("pts/ptmx", folder, "ptmx") == 0;
}

bool put_devices(int root, int place, uint64_t shared_memory, bool has_terminals, const char **where)
{
    *where = "/dev";
    int folder = make_memory(OWN_BYTES, OWN_FILES, 0755);
    bool good = folder >= 0 && put_mount(folder, place);
    for (int index = 0; good && index < DEVICES; index++) {
        *where = devices[index].path;
        good = put_device(root, folder, &devices[index]);
    }
    if (good) {
        *where = "the streams";
        good = put_null_into_streams(folder);
    }
    for (int index = 0; good && index < LINKS; index++)
        good = symlinkat(links[index].target, folder, links[index].name) == 0;
    if (good && has_terminals) {
        *where = "/dev/pts";
        good = put_terminals(folder);
    }
    if (good) {
        *where = "/dev/shm";
        int shared = make_folder(folder, "shm", 01777);
        good = shared >= 0;
        if (good && shared_memory != 0)
            good = put_and_close(make_memory(shared_memory, FILES_OF_SHARED_MEMORY, 01777), shared);
    }
    good = good && lock_mount(folder);
    drop(folder);
    return good;
}
