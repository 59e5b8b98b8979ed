/* A call as it arrives, frame by frame; see FRAMING.md. */
#ifndef CALL_H
#define CALL_H

#include "frames.h"
#include "outcome.h"
#include "seccomp.h"
#include "trees.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct list {
    char **items; /* NULL at its end, once there is any */
    size_t count, capacity;
};

struct call {
    bool began, complete;
    uint32_t flags;
    int64_t timeout, kill_after; /* nanoseconds, or NO_DEADLINE */
    struct list words, variables;
    struct filter filter;
    size_t size;     /* bytes that it takes up here */
    int file;        /* the one that is being written; -1: none */
    bool is_of_tree; /* that file */
    struct trees trees;
    struct outcome failure;
    bool failed; /* a file or a tree could not be made; reported once the call is complete: only then does the other end listen */
};

enum call_flag {
    CALL_NO_NETWORK = 2,
    CALL_NO_NEW_PRIVILEGES = 4,
    CALL_FLAGS = CALL_NO_NETWORK | CALL_NO_NEW_PRIVILEGES,
};

void call_init(struct call *call);

/* Takes the next frame in; NULL, or why it is refused. */
const char *call_take(struct call *call, const struct frame *frame);

#endif
