/* One thread, one loop, no signal handlers.
 *
 * Every signal is blocked and taken by one wait, which ends at the next moment at which something is due; where the
 * command's streams are moved, it is the pump's wait.
 * The tree is gone when wait says that there are no children (ECHILD), since every descendant that loses its parent
 * becomes our child.
 */
#include "supervise.h"

#include "diagnostics.h"
#include "events.h"
#include "tree.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

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
    const struct pump *pump; /* NULL: there is none */
    struct ending ending;
};

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

static void wait_for_signal(struct supervision *run)
{
    int sig = run->pump != NULL ? run->pump->wait(run->pump->state, run->due) : signal_until(run->due);
    if (sig > 0)
        pass_on(run, sig, now());
}

static bool is_over(const struct pump *pump)
{
    return pump != NULL && pump->is_over != NULL && pump->is_over(pump->state);
}

static void supervise_until_none_is_left(struct supervision *run)
{
    while (!reap(run)) {
        int64_t time = now();
        bool is_due = run->due != NO_DEADLINE && time >= run->due;
        if (run->phase == RUNNING && run->ending.command_ended) {
            start_killing(run, time); /* what it left behind */
            is_due = true;
        } else if (run->phase != KILLING && is_over(run->pump)) {
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
                run->ending.leaves_some = true;
                return;
            }
            signal_tree(SIGKILL, run->command);
            run->due = now() + KILL_AGAIN_AFTER;
        }
        wait_for_signal(run);
    }
}

struct ending supervise(pid_t command, const struct time_limits *limits, const struct pump *pump)
{
    struct supervision run = {.command = command,
                              .phase = RUNNING,
                              .kill_after = limits->kill_after,
                              .due = limits->deadline,
                              .pump = pump};
    supervise_until_none_is_left(&run);
    return run.ending;
}
