/* The clock, and waiting: for a descriptor, a signal, or a moment on that clock. */
#ifndef EVENTS_H
#define EVENTS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define NANOSECONDS_PER_SECOND INT64_C(1000000000)
#define LONGEST_DURATION (NANOSECONDS_PER_SECOND * 1000000000) /* 31 years: far from overflow when added to now() */
#define NO_DEADLINE INT64_C(-1) /* for a duration, too: without end */

/* Monotonic nanoseconds. */
int64_t now(void);

/* The moment at which a duration that begins at `start` is over. */
int64_t moment_after(int64_t start, int64_t duration);

/* As poll(), until a moment of now(), or NO_DEADLINE. */
int poll_until(struct pollfd *polled, nfds_t count, int64_t due);

/* The next of the signals, all of which must be blocked; 0 when `due` has passed. */
int signal_until(int64_t due);

/* A descriptor that is readable when a signal has come, for use with poll_until(); -1 and errno. */
int open_signals(void);

/* The next signal from it, or 0. */
int read_signal(int signals);

bool set_nonblocking(int descriptor);

#endif
