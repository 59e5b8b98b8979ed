/* How a command ended, or why it did not begin: as one value, an exit status, and a line of the report. */
#ifndef OUTCOME_H
#define OUTCOME_H

#include <stdbool.h>
#include <stddef.h>

/* The numbers are those of END frames (FRAMING.md). */
enum outcome_kind {
    OUTCOME_EXIT = 0,         /* number: its exit code */
    OUTCOME_SIGNAL = 1,       /* number: the signal */
    OUTCOME_TIMEOUT = 2,      /* no number */
    OUTCOME_EXEC_FAILED = 3,  /* number: an errno */
    OUTCOME_SETUP_FAILED = 4, /* number: an errno; step: what failed */
};

enum {
    STEP_LENGTH = 24, /* with its NUL */
    REPORT_LENGTH = 64,
};

struct outcome {
    enum outcome_kind kind;
    int number;
    char step[STEP_LENGTH];
};

/* What is known of a command when its whole tree is gone, or what is left of it cannot be killed. */
struct ending {
    bool command_ended; /* false only if it could not even be killed */
    bool leaves_some;   /* processes that could not be */
    int status;         /* the command's, as wait gave it */
    bool timed_out;
};

struct outcome outcome_of_ending(const struct ending *ending);
struct outcome outcome_of_failed_exec(int error);
struct outcome outcome_of_failed_setup(const char *step, int error);

/* The status that praxis-init exits with. */
int exit_status_of(const struct outcome *outcome);

/* The report: "WORD[ NUMBER][ STEP]\n". Returns its length. */
size_t write_report(const struct outcome *outcome, char line[REPORT_LENGTH]);

#endif
