/* By the numbers that the kernel gives mounts (statx, Linux 5.8): device and inode are the same for a directory and for
 * what is mounted onto itself there, and come again. The structure is spelt out: a libc's headers may be older.
 */
#include "places.h"

#include "mounting.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOUNT_NUMBER = 0x1000, IS_MOUNT = 0x2000, NOWHERE = 0 }; /* no mount has that number */

struct found {
    uint32_t mask, block;
    uint64_t attributes;
    uint8_t others[128];
    uint64_t mount;
    uint8_t rest[104];
};
_Static_assert(offsetof(struct found, mount) == 144 && sizeof(struct found) == 256, "as the kernel has it");

static uint64_t mount_of(int place)
{
    struct found found;
    if (syscall(SYS_statx, place, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, MOUNT_NUMBER, &found) != 0)
        return NOWHERE;
    return (found.mask & MOUNT_NUMBER) != 0 ? found.mount : NOWHERE;
}

bool is_mounted(int folder, const char *name)
{
    struct found found;
    return syscall(SYS_statx, folder, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &found) == 0 &&
           (found.attributes & IS_MOUNT) != 0;
}

/* NOWHERE too where our user may not go: the command may not either. */
static uint64_t mount_at(int root, const char *path)
{
    int place = find_place(root, path);
    uint64_t mount = place < 0 ? NOWHERE : mount_of(place);
    drop(place);
    return mount;
}

static int open_root(void)
{
    return open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void note_places(struct layout *layout)
{
    int root = open_root();
    for (size_t index = 0; index < layout->entry_count; index++)
        layout->entries[index].mount = mount_at(root, layout->entries[index].path);
    drop(root);
}

static bool is_in_its_directory(int root, const char *path)
{
    struct stat wanted, here;
    int place = find_place(root, path);
    int current = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool good = place >= 0 && current >= 0 && fstat(place, &wanted) == 0 && fstat(current, &here) == 0 &&
                wanted.st_dev == here.st_dev && wanted.st_ino == here.st_ino && mount_of(place) == mount_of(current);
    drop(place);
    drop(current);
    return good;
}

bool places_are_right(const struct layout *layout)
{
    int root = open_root();
    bool good = is_in_its_directory(root, layout->directory);
    for (size_t index = 0; good && index < layout->entry_count; index++)
        good = mount_at(root, layout->entries[index].path) == layout->entries[index].mount;
    drop(root);
    return good;
}
