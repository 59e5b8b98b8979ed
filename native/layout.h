/* The layout of a sandbox as it arrives, in one message; see FRAMING.md. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "call.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define LAYOUT_VERSION 1

enum {
    NO_DESCRIPTOR = -1,
    MOST_MOUNTS = 4096,
    MOST_GROUPS = 8,
    MOST_LIMITS = 16,
    MOST_MEMBERSHIPS = 64,
    HOST_NAME_LENGTH = 64,
};

enum layout_flag {
    LAYOUT_HOST_NETWORK = 1,
    LAYOUT_WAITS = 2,
    LAYOUT_HOST_USERS = 4,
    LAYOUT_STAYS = 8,
    LAYOUT_FLAGS = LAYOUT_HOST_NETWORK | LAYOUT_WAITS | LAYOUT_HOST_USERS | LAYOUT_STAYS,
};

enum mount_kind {
    MOUNT_ROOT_DIRECTORY = 1,
    MOUNT_ROOT_OVERLAY = 2,
    MOUNT_ROOT_MEMORY = 3,
    MOUNT_BIND = 4,
    MOUNT_MEMORY = 5,
    MOUNT_PROC = 6,
    MOUNT_DEVICES = 7,
    MOUNT_LINK = 8,
    MOUNT_DIRECTORY = 9,
    MOUNT_CONTENT = 10,
    MOUNT_READ_ONLY = 11,
};

enum mount_flag {
    MOUNT_IS_WRITABLE = 1,
    MOUNT_MAKES_PLACE = 2,
    MOUNT_LOCKS_PROC = 4,
    MOUNT_HAS_TERMINALS = 8,
};

struct entry {
    enum mount_kind kind;
    uint32_t flags, mode;
    int descriptor; /* or NO_DESCRIPTOR */
    uint64_t bytes, files;
    const char *path;   /* in the sandbox */
    const char *target; /* of a link */
    const char *source; /* the descriptor's path outside; see find_sources() */
    uint64_t mount;     /* what is mounted at the path; see note_places() */
};

struct group {
    uint32_t version;
    int descriptor;
};

struct limit {
    int resource;
    struct rlimit values;
};

struct layout {
    bool began, complete; /* complete: the call, if any, may follow */
    uint32_t flags, uid, gid;
    int64_t patience; /* nanoseconds, or NO_DEADLINE */
    char host_name[HOST_NAME_LENGTH + 1];
    const char *directory; /* in which the command begins */
    struct filter filter;  /* of one that waits: put in place before its call comes */
    struct entry *entries;
    struct group groups[MOST_GROUPS];
    struct limit limits[MOST_LIMITS];
    gid_t memberships[MOST_MEMBERSHIPS]; /* the command's supplementary groups */
    size_t entry_count, group_count, limit_count, membership_count;
    size_t size; /* bytes that the texts take up here */
};

void layout_init(struct layout *layout);

/* Takes the next frame in; NULL, or why it is refused. */
const char *layout_take(struct layout *layout, const struct frame *frame);

#endif
