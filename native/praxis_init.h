/* praxis-init: the small static program that praxis-mcp puts in front of a tool's command.
 *
 * praxis_init.c  the command line; one entry per form ("run" today)
 * run.c          the run form: start, report
 * supervise.c    a started command: its signals, its deadline, the end of all it started
 * tree.c         a signal to every descendant, however it hid
 * confine.c      no-new-privileges and the network filter
 */
#ifndef PRAXIS_INIT_H
#define PRAXIS_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Exit statuses that are not the command's own: those of timeout(1) and of the shell. */
enum {
    EXIT_TIMED_OUT = 124,  /* the deadline passed */
    EXIT_SETUP = 125,      /* praxis-init itself failed; the command did not run */
    EXIT_CANNOT_RUN = 126, /* the command was found but could not be executed */
    EXIT_NOT_FOUND = 127,
    EXIT_SIGNAL_BASE = 128, /* 128 + N: the command died of signal N */
    EXIT_SIGNAL_LAST = 191,
};

#define NANOSECONDS_PER_SECOND INT64_C(1000000000)
#define NO_DEADLINE INT64_C(-1)

struct run_options {
    int64_t timeout;    /* nanoseconds, or NO_DEADLINE */
    int64_t kill_after; /* nanoseconds between the polite signal and SIGKILL; 0: SIGKILL at once */
    bool no_network;
    bool no_new_privileges;
    pid_t parent;       /* end with this process, our parent; 0: do not */
    bool plain_status;  /* 128 to 191 become EXIT_SETUP: Dagger takes them for a failure of the exec itself */
    const char *report; /* a path, or a descriptor number from 3 up; NULL: no report */
    char **command;     /* argv, NULL at its end */
};

/* Runs the command to its end and returns the status to exit with. */
int run_command(const struct run_options *options);

struct ending {
    bool command_ended; /* false only if it could not even be killed */
    int status;         /* the command's, as wait gave it */
    bool timed_out;
};

/* Monotonic nanoseconds. */
int64_t now(void);

/* Returns when the command and all its descendants are gone. All signals must be blocked. `deadline` is a moment of
 * now(), or NO_DEADLINE. */
struct ending supervise(pid_t command, int64_t deadline, int64_t kill_after);

/* Sends sig to every descendant of this process, except itself. `command` is the session that the command leads:
 * all that can be reached where /proc is absent and we are not PID 1. */
void signal_tree(int sig, pid_t command);

/* All return NULL, or the name of the step that failed, with errno set. */
const char *forbid_new_privileges(void);
const char *refuse_network(void);       /* for this process and all it starts; implies no new privileges */
const char *seal_off_from_others(void); /* for the command only, before its exec; see confine.c */

/* One line on stderr: "praxis-init: WHAT[ 'NAME'][: strerror(error)]". */
void complain(const char *what, const char *name, int error);

#endif
