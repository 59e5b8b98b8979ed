/* Every name is looked up from the tree's own directory, one after the other, and no link is followed: not even one that
 * came before. Without openat2, which gVisor lacks.
 */
#include "trees.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of all paths that are kept. */
static const size_t MOST_TEXT = 16 * 1024 * 1024;

static const char no_memory[] = "no memory is left for the trees";

static bool is_newer(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec != other->tv_sec ? one->tv_sec > other->tv_sec : one->tv_nsec > other->tv_nsec;
}

static struct tree *current(struct trees *trees)
{
    return &trees->items[trees->count - 1];
}

/* Where something fails from now on. */
static void go_to(struct trees *trees, const char *path)
{
    snprintf(trees->where, sizeof trees->where, "%s", path);
}

/* A path of names below a tree's directory. */
static bool is_plain(const char *path)
{
    for (const char *name = path;; name++) {
        size_t length = strcspn(name, "/");
        if (length == 0 || length > NAME_MAX || (length == 1 && name[0] == '.') ||
            (length == 2 && name[0] == '.' && name[1] == '.'))
            return false;
        name += length;
        if (*name == '\0')
            return true;
    }
}

/* The directory that the path's last name, which `name` gets, is in. It is the root itself, or to be closed. */
static int open_parent(int root, char *path, const char **name)
{
    int here = root;
    for (char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        *slash = '\0';
        int next = openat(here, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        *slash = '/';
        if (here != root)
            close_quietly(here);
        if (next < 0)
            return -1;
        here = next;
    }
    *name = path;
    return here;
}

/* Missing folders above it; those that cannot be made are reported by the open that follows. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
}

static const char *begin(struct trees *trees, const struct frame *frame, bool *failed)
{
    char path[PATH_MAX];
    if (frame->length < 17 || frame->length - 16 >= sizeof path)
        return "a TREE without a path, or with one of more than 4095 bytes";
    if (trees->count == MOST_TREES)
        return "more than 64 trees";
    size_t length = frame->length - 16;
    memcpy(path, frame->payload + 16, length);
    path[length] = '\0';
    struct tree tree = {.flags = get_u32(frame->payload),
                        .root = -1,
                        .most_entries = get_u32(frame->payload + 4),
                        .most_bytes = get_u64(frame->payload + 8)};
    if ((tree.flags & ~(uint32_t)TREE_FLAGS) != 0)
        return "a TREE with flags that are unknown here";
    if (path[0] != '/' || strlen(path) != length || !is_plain(path + 1))
        return "a TREE whose path is not absolute and plain";
    if (tree.flags & TREE_ONE_FILE) {
        tree.only = strdup(strrchr(path, '/') + 1);
        if (tree.only == NULL)
            return no_memory;
    }
    if (!*failed) {
        make_folders(path);
        if (tree.only != NULL)
            path[strlen(path) - strlen(tree.only)] = '\0';
        else
            mkdir(path, 0755);
        go_to(trees, path);
        tree.root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *failed = tree.root < 0;
    }
    trees->items[trees->count++] = tree;
    return NULL;
}

static void note_change(struct trees *trees, struct tree_entry *entry, const struct stat *found)
{
    entry->size = found->st_size;
    entry->changed = found->st_ctim;
    if (is_newer(&entry->changed, &trees->newest))
        trees->newest = entry->changed;
}

/* The entry as it is now. */
static const char *note(struct trees *trees, const char *path, int folder, const char *name, bool *failed)
{
    if ((current(trees)->flags & TREE_RETURNS) == 0)
        return NULL;
    struct stat found;
    if (fstatat(folder, name, &found, AT_SYMLINK_NOFOLLOW) != 0) {
        *failed = true;
        return NULL;
    }
    size_t size = strlen(path) + 1;
    if (trees->entry_count == MOST_TREE_ENTRIES || size > MOST_TEXT - trees->text)
        return "trees of more than 131072 entries, or with paths of more than 16 MiB";
    trees->text += size;
    if (trees->entry_count == trees->entry_capacity) {
        size_t capacity = trees->entry_capacity == 0 ? 64 : trees->entry_capacity * 2;
        struct tree_entry *larger = realloc(trees->entries, capacity * sizeof *larger);
        if (larger == NULL)
            return no_memory;
        trees->entries = larger;
        trees->entry_capacity = capacity;
    }
    const char *kept = strdup(path);
    if (kept == NULL)
        return no_memory;
    struct tree_entry *entry = &trees->entries[trees->entry_count++];
    *entry = (struct tree_entry){
        .tree = trees->count - 1, .path = kept, .mode = found.st_mode, .inode = found.st_ino};
    note_change(trees, entry, &found);
    return NULL;
}

/* A directory comes once more where its permissions would have kept its content out. They usually come in reverse order:
 * each is looked for from the one before, or thousands would take seconds, in which no signal is received. */
static struct tree_entry *find_last(struct trees *trees, const char *path)
{
    if ((current(trees)->flags & TREE_RETURNS) == 0) /* nothing of it is noted */
        return NULL;
    size_t index = trees->looked;
    for (size_t left = trees->entry_count; left > 0; left--) {
        index = (index == 0 ? trees->entry_count : index) - 1;
        struct tree_entry *entry = &trees->entries[index];
        if (entry->tree == trees->count - 1 && strcmp(entry->path, path) == 0) {
            trees->looked = index;
            return entry;
        }
    }
    return NULL;
}

static const char *count_entry(struct tree *tree)
{
    return tree->entries++ < tree->most_entries ? NULL : "more entries than the TREE may have";
}

static const char *make_directory_in(struct trees *trees, const char *path, int folder, const char *name, mode_t mode,
                                     bool *failed)
{
    bool made = mkdirat(folder, name, 0700) == 0;
    /* One that comes once more does not count again. */
    const char *refusal = made ? count_entry(current(trees)) : NULL;
    if (refusal != NULL)
        return refusal;
    int here = made || errno == EEXIST ? openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    struct stat found;
    if (here < 0 || fstat(here, &found) != 0 || ((found.st_mode & 07777) != mode && fchmod(here, mode) != 0))
        *failed = true;
    if (here >= 0)
        close_quietly(here);
    if (*failed)
        return NULL;
    struct tree_entry *known = made ? NULL : find_last(trees, path);
    if (known == NULL)
        return note(trees, path, folder, name, failed);
    known->mode = S_IFDIR | mode;
    return NULL;
}

static const char *open_file_in(struct trees *trees, const char *path, int folder, const char *name, mode_t mode,
                                int *file, bool *failed)
{
    /* Not blocking: what is there already may be a pipe that nobody reads. */
    int how = O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    how |= current(trees)->only != NULL ? O_TRUNC : O_EXCL;
    *file = openat(folder, name, how, 0600);
    struct stat found;
    if (*file >= 0 && fstat(*file, &found) == 0 && !S_ISREG(found.st_mode)) {
        errno = EEXIST;
        *failed = true;
    } else if (*file < 0 || fchmod(*file, mode) != 0) { /* what openat() is given is cut by the umask */
        *failed = true;
    }
    return *failed ? NULL : note(trees, path, folder, name, failed);
}

static const char *add(struct trees *trees, const struct frame *frame, int *file, bool *failed)
{
    char path[PATH_MAX];
    bool is_link = frame->type == FRAME_TREE_LINK, is_file = frame->type == FRAME_TREE_FILE;
    size_t head = is_link ? 0 : is_file ? 12 : 4;
    const char *text = (const char *)frame->payload + head, *target = "";
    if (frame->length <= head)
        return "an entry of a tree without a path";
    size_t left = frame->length - head, length = is_link ? strnlen(text, left) : left;
    if (length >= sizeof path)
        return "an entry of a tree with a path of more than 4095 bytes";
    memcpy(path, text, length);
    path[length] = '\0';
    if (strlen(path) != length || !is_plain(path))
        return "an entry of a tree whose path is not below it";
    char link[PATH_MAX];
    if (is_link) {
        size_t size = left - length < 2 ? 0 : left - length - 1;
        target = text + length + 1;
        if (size == 0 || size >= sizeof link || memchr(target, '\0', size) != NULL)
            return "a TREE_LINK without a target, or with one of more than 4095 bytes";
        memcpy(link, target, size);
        link[size] = '\0';
    }
    uint32_t mode = is_link ? 0 : get_u32(frame->payload);
    if ((mode & ~UINT32_C(07777)) != 0)
        return "an entry of a tree with a mode above 07777";
    if (trees->count == 0)
        return "an entry of a tree without a TREE";
    struct tree *tree = current(trees);
    if (tree->only != NULL && (!is_file || strcmp(path, tree->only) != 0))
        return "another entry than the file that is the tree";
    const char *name, *refusal = is_file || is_link ? count_entry(tree) : NULL;
    if (refusal != NULL)
        return refusal;
    if (is_file) {
        uint64_t time = get_u64(frame->payload + 4);
        trees->modified = (struct timespec){(time_t)(time / 1000000000), (long)(time % 1000000000)};
        trees->ends_in_hole = false;
    }
    if (*failed)
        return NULL;
    go_to(trees, path);
    int folder = open_parent(tree->root, path, &name);
    if (folder < 0) {
        *failed = true;
        return NULL;
    }
    if (is_file)
        refusal = open_file_in(trees, path, folder, name, (mode_t)mode, file, failed);
    else if (!is_link)
        refusal = make_directory_in(trees, path, folder, name, (mode_t)mode, failed);
    else if (symlinkat(link, folder, name) == 0)
        refusal = note(trees, path, folder, name, failed);
    else
        *failed = true;
    if (folder != tree->root)
        close_quietly(folder);
    return refusal;
}

const char *trees_take(struct trees *trees, const struct frame *frame, int *file, bool *failed)
{
    return frame->type == FRAME_TREE ? begin(trees, frame, failed) : add(trees, frame, file, failed);
}

const char *trees_count(struct trees *trees, uint64_t bytes)
{
    struct tree *tree = current(trees);
    if (bytes > tree->most_bytes - tree->bytes)
        return "more content than the TREE may have";
    tree->bytes += bytes;
    return NULL;
}

bool trees_skip(struct trees *trees, int file, uint64_t bytes)
{
    trees->ends_in_hole = true;
    if (bytes <= INT64_MAX)
        return lseek(file, (off_t)bytes, SEEK_CUR) >= 0;
    errno = EFBIG;
    return false;
}

bool trees_end_file(struct trees *trees, int file)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, trees->modified};
    struct stat found;
    bool good = (!trees->ends_in_hole || ftruncate(file, lseek(file, 0, SEEK_CUR)) == 0) &&
                futimens(file, times) == 0 && fstat(file, &found) == 0;
    if (good && (current(trees)->flags & TREE_RETURNS) != 0)
        note_change(trees, &trees->entries[trees->entry_count - 1], &found);
    if (good)
        return close(file) == 0;
    close_quietly(file);
    return false;
}

static int compare(const void *one, const void *other)
{
    const struct tree_entry *left = one, *right = other;
    if (left->tree != right->tree)
        return left->tree < right->tree ? -1 : 1;
    return strcmp(left->path, right->path);
}

/* Times of files go by a clock that ticks some hundred times a second: a change within the tick of the last one that we
 * made would have its time. */
static void wait_for_tick(const struct timespec *newest)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct timespec time;
    for (int left = 50; left > 0; left--) {
        if (clock_gettime(CLOCK_REALTIME_COARSE, &time) != 0 || is_newer(&time, newest))
            return;
        nanosleep(&pause, NULL);
    }
}

void trees_settle(struct trees *trees)
{
    if (trees->entry_count == 0)
        return;
    qsort(trees->entries, trees->entry_count, sizeof *trees->entries, compare);
    wait_for_tick(&trees->newest);
}

struct tree_entry *trees_find(const struct trees *trees, size_t tree, const char *path)
{
    const struct tree_entry wanted = {.tree = tree, .path = path};
    return trees->entry_count == 0
               ? NULL
               : bsearch(&wanted, trees->entries, trees->entry_count, sizeof wanted, compare);
}
