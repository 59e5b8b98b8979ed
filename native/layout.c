/* Every number is checked here, so that what arranges the sandbox meets none that it would have to doubt: kinds, flags,
 * sizes, descriptors that are open, and paths that are nothing but names.
 */
#include "layout.h"

#include "events.h"
#include "frames.h"
#include "memory.h"
#include "seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const size_t MOST_TEXT = 8 * 1024 * 1024; /* bytes of all paths together */
static const uint64_t FEWEST_BYTES = 4096, MOST_BYTES_OF_MEMORY = UINT64_C(1) << 40;
static const uint64_t FEWEST_FILES = 16, MOST_FILES = 1 << 24;
static const uint32_t LARGEST_ID = INT32_MAX;

enum { LAYOUT_FIXED = 24, MOUNT_FIXED = 32, RESOURCES = 16 };

/* What a kind has: flags that it knows, and fields. */
struct form_of_kind {
    uint32_t flags;
    bool has_descriptor, may_lack_descriptor, has_mode, has_bytes, has_files;
};

static const struct form_of_kind kinds[] = {
    [MOUNT_ROOT_DIRECTORY] = {.has_descriptor = true},
    [MOUNT_ROOT_OVERLAY] = {.has_descriptor = true, .has_bytes = true, .has_files = true},
    [MOUNT_ROOT_MEMORY] = {.has_mode = true, .has_bytes = true, .has_files = true},
    [MOUNT_BIND] = {.flags = MOUNT_IS_WRITABLE | MOUNT_MAKES_PLACE, .has_descriptor = true},
    [MOUNT_MEMORY] = {.flags = MOUNT_MAKES_PLACE, .has_mode = true, .has_bytes = true, .has_files = true},
    [MOUNT_PROC] = {.flags = MOUNT_MAKES_PLACE | MOUNT_LOCKS_PROC},
    [MOUNT_DEVICES] = {.flags = MOUNT_MAKES_PLACE | MOUNT_HAS_TERMINALS, .has_bytes = true},
    [MOUNT_LINK] = {.flags = 0},
    [MOUNT_DIRECTORY] = {.has_mode = true},
    [MOUNT_CONTENT] = {.flags = MOUNT_MAKES_PLACE, .has_descriptor = true, .may_lack_descriptor = true,
                       .has_mode = true},
    [MOUNT_READ_ONLY] = {.flags = 0},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

void layout_init(struct layout *layout)
{
    *layout = (struct layout){.patience = NO_DEADLINE};
}

static char *text_of(struct layout *layout, const uint8_t *bytes, size_t length, const char **refusal)
{
    char *text = NULL;
    layout->size += length + 1;
    if (layout->size > MOST_TEXT)
        *refusal = "a layout with paths of more than 8 MiB";
    else if ((text = keep_text(bytes, length)) == NULL)
        *refusal = "no memory is left for the layout";
    return text;
}

/* Absolute, and names only: neither ".", "..", an empty one, nor a slash at the end. */
static bool is_plain(const char *path)
{
    if (path[0] != '/')
        return false;
    if (path[1] == '\0')
        return true;
    for (const char *name = path; *name == '/';) {
        size_t length = strcspn(++name, "/");
        if (length == 0 || length > NAME_MAX || strncmp(name, "..", length) == 0) /* "." as well */
            return false;
        name += length;
    }
    return true;
}

/* The path that the bytes are, or NULL and why it is refused. */
static const char *path_of(struct layout *layout, const uint8_t *bytes, size_t length, const char **refusal)
{
    if (length == 0 || length >= PATH_MAX || memchr(bytes, '\0', length) != NULL) {
        *refusal = "a path that is empty, longer than 4095 bytes, or has a NUL byte";
        return NULL;
    }
    const char *path = text_of(layout, bytes, length, refusal);
    if (path != NULL && !is_plain(path))
        *refusal = "a path that is not absolute and plain";
    return *refusal == NULL ? path : NULL;
}

static bool is_open(uint32_t number)
{
    return number > STDERR_FILENO && number <= INT_MAX && fcntl((int)number, F_GETFD) >= 0;
}

static const char *begin(struct layout *layout, const struct frame *frame)
{
    if (frame->length < LAYOUT_FIXED)
        return "a LAYOUT that is too short";
    if (get_u32(frame->payload) != LAYOUT_VERSION)
        return "a LAYOUT of a version that is unknown here";
    layout->flags = get_u32(frame->payload + 4);
    layout->uid = get_u32(frame->payload + 8);
    layout->gid = get_u32(frame->payload + 12);
    uint64_t patience = get_u64(frame->payload + 16);
    if ((layout->flags & ~(uint32_t)LAYOUT_FLAGS) != 0)
        return "a LAYOUT with flags that are unknown here";
    if (layout->uid > LARGEST_ID || layout->gid > LARGEST_ID)
        return "a LAYOUT with a user or group above 2147483647";
    if ((layout->flags & LAYOUT_HOST_USERS) != 0 && (layout->uid != 0 || layout->gid != 0))
        return "a LAYOUT with the machine's users, and a command that is not root's";
    if (patience > LONGEST_DURATION || (patience != 0 && (layout->flags & LAYOUT_WAITS) == 0))
        return "a LAYOUT with a patience of more than 31 years, or that waits for nothing";
    layout->patience = patience == 0 ? NO_DEADLINE : (int64_t)patience;
    const uint8_t *name = frame->payload + LAYOUT_FIXED;
    size_t left = frame->length - LAYOUT_FIXED;
    const uint8_t *end = memchr(name, '\0', left);
    size_t length = end == NULL ? 0 : (size_t)(end - name);
    if (length == 0 || length > HOST_NAME_LENGTH)
        return "a LAYOUT without a host name of 1 to 64 bytes";
    memcpy(layout->host_name, name, length);
    layout->began = true;
    const char *refusal = NULL;
    layout->directory = path_of(layout, end + 1, left - length - 1, &refusal);
    return refusal;
}

static bool is_within(bool has, uint64_t value, uint64_t least, uint64_t most)
{
    return has ? value >= least && value <= most : value == 0;
}

/* Whether the fields are those that the kind has, and within their bounds. */
static const char *judge(const struct entry *entry, uint32_t descriptor)
{
    const struct form_of_kind *form = &kinds[entry->kind];
    bool lacks = descriptor == UINT32_MAX;
    bool no_shared_memory = entry->kind == MOUNT_DEVICES && entry->bytes == 0;
    if ((entry->flags & ~form->flags) != 0)
        return "a MOUNT with flags that its kind does not have";
    if (!is_within(form->has_mode, entry->mode, 0, 07777))
        return "a MOUNT with permission bits above 07777, or that its kind does not have";
    if (!no_shared_memory && !is_within(form->has_bytes, entry->bytes, FEWEST_BYTES, MOST_BYTES_OF_MEMORY))
        return "a MOUNT with a size out of bounds, or that its kind does not have";
    if (!is_within(form->has_files, entry->files, FEWEST_FILES, MOST_FILES))
        return "a MOUNT with a number of files out of bounds, or that its kind does not have";
    if (lacks ? form->has_descriptor && !form->may_lack_descriptor : !form->has_descriptor || !is_open(descriptor))
        return "a MOUNT with a descriptor that is not open, is missing, or that its kind does not have";
    return NULL;
}

static const char *set_texts(struct layout *layout, struct entry *entry, const uint8_t *bytes, size_t length)
{
    const char *refusal = NULL;
    if (entry->kind == MOUNT_LINK) {
        const uint8_t *end = memchr(bytes, '\0', length);
        if (end == NULL)
            return "a link without a target";
        const uint8_t *target = end + 1;
        size_t left = length - (size_t)(target - bytes);
        if (left == 0 || left >= PATH_MAX || memchr(target, '\0', left) != NULL)
            return "a link with a target that is empty, longer than 4095 bytes, or has a NUL byte";
        length = (size_t)(end - bytes);
        entry->target = text_of(layout, target, left, &refusal);
        if (refusal != NULL)
            return refusal;
    }
    entry->path = path_of(layout, bytes, length, &refusal);
    return refusal;
}

static const char *add_mount(struct layout *layout, const struct frame *frame)
{
    if (frame->length < MOUNT_FIXED)
        return "a MOUNT that is too short";
    static struct entry entries[MOST_MOUNTS]; /* most layouts touch one page of it */
    layout->entries = entries;
    if (layout->entry_count == MOST_MOUNTS)
        return "more than 4096 mounts";
    uint32_t kind = get_u32(frame->payload), descriptor = get_u32(frame->payload + 12);
    if (kind == 0 || kind >= KINDS)
        return "a MOUNT of a kind that is unknown here";
    struct entry entry = {
        .kind = (enum mount_kind)kind,
        .flags = get_u32(frame->payload + 4),
        .mode = get_u32(frame->payload + 8),
        .bytes = get_u64(frame->payload + 16),
        .files = get_u64(frame->payload + 24),
    };
    const char *refusal = judge(&entry, descriptor);
    if (refusal == NULL)
        refusal = set_texts(layout, &entry, frame->payload + MOUNT_FIXED, frame->length - MOUNT_FIXED);
    if (refusal != NULL)
        return refusal;
    entry.descriptor = descriptor == UINT32_MAX ? NO_DESCRIPTOR : (int)descriptor;
    bool is_root = kind <= MOUNT_ROOT_MEMORY, is_at_top = strcmp(entry.path, "/") == 0;
    if (is_root != (layout->entry_count == 0) || (is_root != is_at_top && kind != MOUNT_READ_ONLY))
        return "a root that is not the first MOUNT, or not at /, or another MOUNT there";
    layout->entries[layout->entry_count++] = entry;
    return NULL;
}

static const char *add_group(struct layout *layout, const struct frame *frame)
{
    if (frame->length != 8)
        return "a GROUP that is not 8 bytes long";
    uint32_t version = get_u32(frame->payload), descriptor = get_u32(frame->payload + 4);
    if (layout->group_count == MOST_GROUPS || (version != 1 && version != 2) || !is_open(descriptor))
        return "a GROUP too many, of a version that is unknown here, or whose descriptor is not open";
    layout->groups[layout->group_count++] = (struct group){version, (int)descriptor};
    return NULL;
}

static rlim_t limit_of(uint64_t value)
{
    return value == UINT64_MAX ? RLIM_INFINITY : (rlim_t)value;
}

static const char *add_limit(struct layout *layout, const struct frame *frame)
{
    if (frame->length != 20)
        return "a LIMIT that is not 20 bytes long";
    uint32_t resource = get_u32(frame->payload);
    if (layout->limit_count == MOST_LIMITS || resource >= RESOURCES)
        return "a LIMIT too many, or of a resource that is unknown here";
    layout->limits[layout->limit_count++] = (struct limit){
        (int)resource, {limit_of(get_u64(frame->payload + 4)), limit_of(get_u64(frame->payload + 12))}};
    return NULL;
}

static const char *add_membership(struct layout *layout, const struct frame *frame)
{
    if (frame->length != 4)
        return "a MEMBERSHIP that is not 4 bytes long";
    uint32_t group = get_u32(frame->payload);
    if ((layout->flags & LAYOUT_HOST_USERS) == 0)
        return "a MEMBERSHIP in a layout without the machine's users";
    if (layout->membership_count == MOST_MEMBERSHIPS || group > LARGEST_ID)
        return "a MEMBERSHIP too many, or of a group above 2147483647";
    layout->memberships[layout->membership_count++] = (gid_t)group;
    return NULL;
}

static const char *set_filter(struct layout *layout, const struct frame *frame)
{
    if ((layout->flags & LAYOUT_WAITS) == 0 || layout->filter.instructions != NULL)
        return "a second FILTER, or one of a layout that waits for nothing";
    return filter_take(&layout->filter, frame->payload, frame->length);
}

const char *layout_take(struct layout *layout, const struct frame *frame)
{
    if (layout->began != (frame->type != FRAME_LAYOUT))
        return layout->began ? "a second LAYOUT" : "a layout that does not begin with LAYOUT";
    switch (frame->type) {
    case FRAME_LAYOUT:
        return begin(layout, frame);
    case FRAME_MOUNT:
        return add_mount(layout, frame);
    case FRAME_GROUP:
        return add_group(layout, frame);
    case FRAME_LIMIT:
        return add_limit(layout, frame);
    case FRAME_MEMBERSHIP:
        return add_membership(layout, frame);
    case FRAME_FILTER:
        return set_filter(layout, frame);
    case FRAME_LAID:
        layout->complete = true;
        return frame->length != 0          ? "a LAID with a payload"
               : layout->entry_count == 0 ? "a layout without a root"
                                          : NULL;
    default:
        return unknown_frame;
    }
}
