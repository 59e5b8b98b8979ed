/* The supervision of a started command: its signals, its deadline, and the end of all that it started. */
#ifndef SUPERVISE_H
#define SUPERVISE_H

#include "outcome.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What moves a command's streams while it runs. Supervision only has to know when to let it: where the bytes come from
 * and go to (relay.h, capture.h) is the caller's affair. */
struct pump {
    void *state;
    /* Moves what can be moved, waiting until something can, a signal comes, or `due` passes. The signal, or 0. */
    int (*wait)(void *state, int64_t due);
    /* Nobody is left to whom the streams matter, and so the command must go; NULL: that never happens. */
    bool (*is_over)(const void *state);
};

struct time_limits {
    int64_t deadline;   /* a moment of now(), or NO_DEADLINE */
    int64_t kill_after; /* nanoseconds between the polite signal and SIGKILL; 0: SIGKILL at once */
};

/* Returns when the command and all its descendants are gone, but for what cannot be killed. All signals must be
 * blocked. Without a pump (NULL) the command has streams that nobody here looks after. */
struct ending supervise(pid_t command, const struct time_limits *limits, const struct pump *pump);

#endif
