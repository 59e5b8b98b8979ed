/* What praxis-init says of itself: a line on stderr, and its exit status. */
#ifndef DIAGNOSTICS_H
#define DIAGNOSTICS_H

/* Exit statuses that are not the command's own: those of timeout(1) and of the shell, so that knowing these is knowing
 * ours. A command may exit with the same numbers; only the report of the run form tells them apart. */
enum {
    EXIT_TIMED_OUT = 124,  /* the deadline passed */
    EXIT_SETUP = 125,      /* praxis-init itself failed; the command did not run */
    EXIT_CANNOT_RUN = 126, /* the command was found but could not be executed */
    EXIT_NOT_FOUND = 127,
    EXIT_SIGNAL_BASE = 128, /* 128 + N: the command died of signal N */
    EXIT_SIGNAL_LAST = 191,
};

/* One line on stderr: "praxis-init: WHAT[ 'NAME'][: strerror(error)]". `name` may be NULL, `error` 0. */
void complain(const char *what, const char *name, int error);

/* The same, as the last thing that is done: returns EXIT_SETUP. */
int fail_setup(const char *what, const char *name, int error);

/* The same for a command line that is wrong: it also says where the right one is explained. */
int refuse_usage(const char *what, const char *name);

#endif
