/* Every wait of praxis-init ends at a moment, not after a duration: a wait that is interrupted and taken up again then
 * does not grow. There are no signal handlers; signals are blocked, and read like any other event. */
#include "events.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * NANOSECONDS_PER_SECOND + time.tv_nsec;
}

int64_t moment_after(int64_t start, int64_t duration)
{
    return duration == NO_DEADLINE ? NO_DEADLINE : start + duration;
}

/* The time that is left until `due`, as system calls take it: NULL is without end. */
static const struct timespec *time_until(int64_t due, struct timespec *time)
{
    if (due == NO_DEADLINE)
        return NULL;
    int64_t left = due - now();
    if (left < 0)
        left = 0;
    *time = (struct timespec){left / NANOSECONDS_PER_SECOND, left % NANOSECONDS_PER_SECOND};
    return time;
}

int poll_until(struct pollfd *polled, nfds_t count, int64_t due)
{
    struct timespec time;
    return ppoll(polled, count, time_until(due, &time), NULL);
}

int signal_until(int64_t due)
{
    struct timespec time;
    sigset_t all;
    sigfillset(&all);
    int sig = sigtimedwait(&all, NULL, time_until(due, &time));
    return sig > 0 ? sig : 0;
}

int open_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    return signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
}

int read_signal(int signals)
{
    struct signalfd_siginfo info;
    return read(signals, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

bool set_nonblocking(int descriptor)
{
    int flags = fcntl(descriptor, F_GETFL);
    return flags >= 0 && fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0;
}
