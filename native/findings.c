/* Nothing of the command is left that could swap anything meanwhile; all the same no link is followed, and what is sent
 * is what is held. What the command closed to its own user is opened up: its permissions have been noted by then.
 */
#include "findings.h"

#include "files.h"
#include "frames.h"
#include "places.h"
#include "trees.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEEPEST = 200 }; /* directories inside one another, each held open */

struct walk {
    struct relay *relay;
    struct trees *trees;
    struct tree *tree;
    size_t number; /* the tree's */
    dev_t device;
    uint32_t entries;
    uint64_t bytes;
    enum shortfall shortfall;
    int error;
    char path[PATH_MAX];
};

/* Always false: nothing more comes of this tree. */
static bool stop(struct walk *walk, enum shortfall shortfall, int error)
{
    walk->shortfall = shortfall;
    walk->error = error;
    return false;
}

/* A frame of a head and a text; false when the channel is over. */
static bool say(struct walk *walk, enum frame_type type, const void *head, size_t size, const char *text, size_t length)
{
    uint8_t *where = relay_reserve(walk->relay, (uint32_t)(size + length));
    if (where == NULL)
        return false;
    memcpy(where, head, size);
    memcpy(where + size, text, length);
    relay_put(walk->relay, type, (uint32_t)(size + length));
    return true;
}

static bool say_path(struct walk *walk, enum frame_type type, const void *head, size_t size)
{
    return say(walk, type, head, size, walk->path, strlen(walk->path));
}

static bool is_same(const struct tree_entry *known, const struct stat *found)
{
    return known != NULL && known->mode == found->st_mode && known->inode == found->st_ino &&
           known->changed.tv_sec == found->st_ctim.tv_sec && known->changed.tv_nsec == found->st_ctim.tv_nsec &&
           known->size == found->st_size;
}

static bool send_hole(struct walk *walk, off_t size)
{
    uint8_t head[8];
    put_u64(head, (uint64_t)size);
    return size == 0 || say(walk, FRAME_FOUND_HOLE, head, sizeof head, "", 0);
}

static bool send_piece(struct walk *walk, int file, off_t begin, off_t end)
{
    while (begin < end) {
        uint32_t most = end - begin < OUTPUT_PAYLOAD ? (uint32_t)(end - begin) : OUTPUT_PAYLOAD;
        uint8_t *where = relay_reserve(walk->relay, most);
        if (where == NULL)
            return false;
        ssize_t count = pread(file, where, most, begin);
        if (count <= 0)
            return stop(walk, FOUND_UNREADABLE, count < 0 ? errno : EIO);
        relay_put(walk->relay, FRAME_FOUND_DATA, (uint32_t)count);
        begin += count;
    }
    return true;
}

static bool send_content(struct walk *walk, int file, off_t size)
{
    for (off_t place = 0; place < size;) {
        off_t data = lseek(file, place, SEEK_DATA);
        if (data < 0)
            data = errno == ENXIO ? size : place; /* EINVAL: a file system that does not tell holes */
        if (data > size)
            data = size;
        off_t end = data < size ? lseek(file, data, SEEK_HOLE) : size;
        if (end <= data || end > size)
            end = size;
        if (!send_hole(walk, data - place) || !send_piece(walk, file, data, end))
            return false;
        place = end;
    }
    return true;
}

static int open_entry(int folder, const char *name, int flags)
{
    return openat(folder, name, flags | O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* What the frame cannot say (tools choose times) is the nearest that it can. */
static uint64_t nanoseconds_of(const struct timespec *time)
{
    const uint64_t second = 1000000000;
    if (time->tv_sec < 0)
        return 0;
    if ((uint64_t)time->tv_sec >= UINT64_MAX / second)
        return UINT64_MAX;
    return (uint64_t)time->tv_sec * second + (uint64_t)time->tv_nsec;
}

static bool send_file(struct walk *walk, int folder, const char *name, const struct stat *found)
{
    struct tree *tree = walk->tree;
    if ((uint64_t)found->st_size > tree->most_bytes - walk->bytes)
        return stop(walk, FOUND_MORE_BYTES, 0);
    walk->bytes += (uint64_t)found->st_size;
    if ((found->st_mode & 0400) == 0)
        fchmodat(folder, name, 0600, 0);
    int file = open_entry(folder, name, 0);
    struct stat held;
    if (file < 0 || fstat(file, &held) != 0 || held.st_ino != found->st_ino || !S_ISREG(held.st_mode)) {
        int error = file < 0 ? errno : EIO;
        if (file >= 0)
            close(file);
        return stop(walk, FOUND_UNREADABLE, error);
    }
    uint8_t head[20];
    put_u32(head, found->st_mode & 07777);
    put_u64(head + 4, (uint64_t)found->st_size);
    put_u64(head + 12, nanoseconds_of(&found->st_mtim));
    bool good = say_path(walk, FRAME_FOUND_FILE, head, sizeof head) && send_content(walk, file, found->st_size);
    close(file);
    return good;
}

static bool send_link(struct walk *walk, int folder, const char *name)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(folder, name, target, sizeof target);
    if (length <= 0 || length == sizeof target)
        return stop(walk, FOUND_UNREADABLE, length < 0 ? errno : ENAMETOOLONG);
    return say(walk, FRAME_FOUND_LINK, walk->path, strlen(walk->path) + 1, target, (size_t)length);
}

static bool look_through(struct walk *walk, int folder, size_t length, int depth);

static bool look_into(struct walk *walk, int folder, const char *name, const struct stat *found,
                      const struct tree_entry *known, size_t length, int depth)
{
    uint8_t head[4];
    put_u32(head, found->st_mode & 07777);
    if ((known == NULL || known->mode != found->st_mode) && !say_path(walk, FRAME_FOUND_DIRECTORY, head, sizeof head))
        return false;
    if (found->st_dev != walk->device || is_mounted(folder, name))
        return true; /* another mount of the caller's, and none of this tree */
    if (depth == DEEPEST)
        return stop(walk, FOUND_TOO_DEEP, 0);
    if ((found->st_mode & 0500) != 0500)
        fchmodat(folder, name, 0700, 0);
    int inner = open_entry(folder, name, O_DIRECTORY);
    return inner < 0 ? stop(walk, FOUND_UNREADABLE, errno) : look_through(walk, inner, length, depth + 1);
}

/* One entry, of which `walk->path` is the path. */
static bool look_at(struct walk *walk, int folder, const char *name, size_t length, int depth)
{
    struct stat found;
    if (fstatat(folder, name, &found, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0)
        return errno == ENOENT || stop(walk, FOUND_UNREADABLE, errno);
    bool is_directory = S_ISDIR(found.st_mode);
    if (!is_directory && !S_ISREG(found.st_mode) && !S_ISLNK(found.st_mode))
        return true; /* a pipe, socket or device stays here */
    struct tree_entry *known = trees_find(walk->trees, walk->number, walk->path);
    if (known != NULL)
        known->seen = true;
    else if (++walk->entries > walk->tree->most_entries - walk->tree->entries)
        return stop(walk, FOUND_MORE_ENTRIES, 0);
    if (is_directory)
        return look_into(walk, folder, name, &found, known, length, depth);
    if (is_same(known, &found) || is_mounted(folder, name))
        return true;
    return S_ISLNK(found.st_mode) ? send_link(walk, folder, name) : send_file(walk, folder, name, &found);
}

/* All in a directory, of which the path has so many bytes; the descriptor is closed. */
static bool look_through(struct walk *walk, int folder, size_t length, int depth)
{
    DIR *listed = fdopendir(folder);
    if (listed == NULL) {
        close_quietly(folder);
        return stop(walk, FOUND_UNREADABLE, errno);
    }
    bool good = true;
    struct dirent *entry;
    for (errno = 0; good && (entry = readdir(listed)) != NULL; errno = 0) {
        const char *name = entry->d_name;
        size_t size = strlen(name);
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (length + size + 2 > sizeof walk->path) {
            good = stop(walk, FOUND_TOO_DEEP, 0);
            break;
        }
        size_t end = length;
        if (length != 0)
            walk->path[end++] = '/';
        memcpy(walk->path + end, name, size + 1);
        good = look_at(walk, dirfd(listed), name, end + size, depth);
        if (good)
            walk->path[length] = '\0';
    }
    if (good && errno != 0)
        good = stop(walk, FOUND_UNREADABLE, errno);
    closedir(listed);
    return good;
}

static bool say_what_is_gone(struct walk *walk)
{
    const struct trees *trees = walk->trees;
    for (size_t index = 0; index < trees->entry_count; index++) {
        const struct tree_entry *entry = &trees->entries[index];
        if (entry->tree == walk->number && !entry->seen &&
            !say(walk, FRAME_FOUND_GONE, "", 0, entry->path, strlen(entry->path)))
            return false;
    }
    return true;
}

static bool look_for_changes(struct walk *walk)
{
    struct stat root;
    struct tree *tree = walk->tree;
    if (fstat(tree->root, &root) != 0)
        return stop(walk, FOUND_UNREADABLE, errno);
    walk->device = root.st_dev;
    if (tree->only != NULL) {
        strcpy(walk->path, tree->only);
        if (!look_at(walk, tree->root, tree->only, strlen(tree->only), DEEPEST))
            return false;
    } else {
        if ((root.st_mode & 0500) != 0500)
            fchmod(tree->root, 0700);
        int folder = fcntl(tree->root, F_DUPFD_CLOEXEC, 0);
        if (folder < 0)
            return stop(walk, FOUND_UNREADABLE, errno);
        if (!look_through(walk, folder, 0, 0))
            return false;
    }
    return say_what_is_gone(walk);
}

static void send_tree(struct walk *walk, bool is_gone)
{
    uint8_t head[8];
    put_u32(head, (uint32_t)walk->number);
    if (!say(walk, FRAME_FOUND_TREE, head, 4, "", 0))
        return;
    if (!is_gone)
        walk->shortfall = FOUND_BUSY;
    else if (!look_for_changes(walk) && walk->shortfall == FOUND_WHOLE)
        return; /* the channel is over */
    put_u32(head, (uint32_t)walk->shortfall);
    put_u32(head + 4, (uint32_t)walk->error);
    say(walk, FRAME_FOUND_END, head, sizeof head, walk->path, walk->shortfall == FOUND_WHOLE ? 0 : strlen(walk->path));
}

void send_findings(struct relay *relay, bool is_gone)
{
    struct trees *trees = &relay->call.trees;
    for (size_t number = 0; number < trees->count; number++) {
        if ((trees->items[number].flags & TREE_RETURNS) == 0)
            continue;
        struct walk walk = {.relay = relay, .trees = trees, .tree = &trees->items[number], .number = number};
        send_tree(&walk, is_gone);
    }
}
