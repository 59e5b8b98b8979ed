/* The supervision of a started command: one thread, one loop, no signal handlers.
 *
 * Every signal is blocked and taken by sigtimedwait(), whose timeout is the next moment at which something is due; or,
 * where the command's streams are relayed, by the poll() that moves them.
 * The tree is gone when wait says that there are no children (ECHILD), since every descendant that loses its parent
 * becomes our child.
 */
#include "capture.h"
#include "relay.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define MILLISECOND INT64_C(1000000)

/* Between two rounds of SIGKILL: time for the killed to be reaped, and for nothing new to grow large. */
static const int64_t KILL_AGAIN_AFTER = 20 * MILLISECOND;
/* Without any process ending: what is still there is beyond us (a dead disk, another user's process), and the exit
 * status is worth more. Not since the first SIGKILL: among hundreds of busy processes one look at all takes seconds. */
static const int64_t GIVE_UP_AFTER = 5 * NANOSECONDS_PER_SECOND;

enum phase {
    RUNNING,
    ENDING,  /* asked to end; killed when `due` passes */
    KILLING, /* SIGKILL at `due`, until nothing is left, or nothing has ended until `give_up` */
};

struct supervision {
    pid_t command;
    enum phase phase;
    int64_t kill_after;
    int64_t due; /* on the clock of now(); NO_DEADLINE: nothing is */
    int64_t give_up;
    struct relay *relay;     /* these two NULL: the command has our own streams */
    struct capture *capture;
    struct ending ending;
};

int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * NANOSECONDS_PER_SECOND + time.tv_nsec;
}

/* Takes what has ended; true when no process is left below us. */
static bool reap(struct supervision *run)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == run->command) {
            run->ending.command_ended = true;
            run->ending.status = status;
        }
        if (run->phase == KILLING)
            run->give_up = now() + GIVE_UP_AFTER;
    }
    return pid < 0 && errno == ECHILD;
}

static void start_killing(struct supervision *run, int64_t time)
{
    run->phase = KILLING;
    run->due = time;
    run->give_up = time + GIVE_UP_AFTER;
}

static void start_ending(struct supervision *run, int sig, int64_t time)
{
    if (run->kill_after == 0) {
        start_killing(run, time);
        return;
    }
    signal_tree(sig, run->command);
    signal_tree(SIGCONT, run->command); /* a stopped process would not act on it */
    if (run->phase == RUNNING) {        /* asking again does not put the end off */
        run->phase = ENDING;
        run->due = time + run->kill_after;
    }
}

/* A signal sent to us. */
static void pass_on(struct supervision *run, int sig, int64_t time)
{
    switch (sig) {
    case SIGTERM:
    case SIGINT:
    case SIGHUP:
    case SIGQUIT:
        if (run->phase != KILLING)
            start_ending(run, sig, time);
        break;
    case SIGCHLD:
    case SIGPIPE: /* our own writes */
    case SIGTSTP: /* stopping the supervisor would stop the deadline */
    case SIGTTIN:
    case SIGTTOU:
        break;
    default: /* SIGUSR1 and the like mean something to the command, and death to most of what it started */
        if (!run->ending.command_ended)
            kill(run->command, sig);
    }
}

static void wait_for_signal(struct supervision *run, const sigset_t *all)
{
    siginfo_t info;
    struct timespec timeout, *limit = NULL;
    if (run->due != NO_DEADLINE) {
        int64_t left = run->due - now();
        if (left < 0)
            left = 0;
        timeout = (struct timespec){left / NANOSECONDS_PER_SECOND, left % NANOSECONDS_PER_SECOND};
        limit = &timeout;
    }
    int sig = run->relay != NULL     ? relay_wait(run->relay, run->due)
              : run->capture != NULL ? capture_wait(run->capture, run->due)
                                     : sigtimedwait(all, &info, limit);
    if (sig > 0)
        pass_on(run, sig, now());
}

static void supervise_until_none_is_left(struct supervision *run, const sigset_t *all)
{
    while (!reap(run)) {
        int64_t time = now();
        bool is_due = run->due != NO_DEADLINE && time >= run->due;
        bool is_over = run->relay != NULL && relay_is_over(run->relay);
        if (run->phase == RUNNING && run->ending.command_ended) {
            start_killing(run, time); /* what it left behind */
            is_due = true;
        } else if (run->phase != KILLING && is_over) {
            start_killing(run, time); /* nobody is left to see how it ends */
            is_due = true;
        } else if (run->phase == RUNNING && is_due) {
            run->ending.timed_out = true;
            start_ending(run, SIGTERM, time);
            is_due = run->phase == KILLING;
        } else if (run->phase == ENDING && is_due) {
            start_killing(run, time);
        }
        if (run->phase == KILLING && is_due) {
            if (time >= run->give_up) {
                complain("some processes could not be killed", NULL, 0);
                return;
            }
            signal_tree(SIGKILL, run->command);
            run->due = now() + KILL_AGAIN_AFTER;
        }
        wait_for_signal(run, all);
    }
}

struct ending supervise(pid_t command, int64_t deadline, int64_t kill_after, struct relay *relay,
                        struct capture *capture)
{
    struct supervision run = {.command = command,
                              .phase = RUNNING,
                              .kill_after = kill_after,
                              .due = deadline,
                              .relay = relay,
                              .capture = capture};
    sigset_t all;
    sigfillset(&all);
    supervise_until_none_is_left(&run, &all);
    return run.ending;
}
