/* One place for each way of telling an end, so that they agree: a reader of the report, of the END frame or only of the
 * exit status of the same command must come to the same conclusion. */
#include "outcome.h"

#include "diagnostics.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

struct outcome outcome_of_ending(const struct ending *ending)
{
    if (ending->timed_out)
        return (struct outcome){.kind = OUTCOME_TIMEOUT};
    if (ending->command_ended && WIFEXITED(ending->status))
        return (struct outcome){.kind = OUTCOME_EXIT, .number = WEXITSTATUS(ending->status)};
    return (struct outcome){.kind = OUTCOME_SIGNAL,
                            .number = ending->command_ended ? WTERMSIG(ending->status) : SIGKILL};
}

struct outcome outcome_of_failed_exec(int error)
{
    return (struct outcome){.kind = OUTCOME_EXEC_FAILED, .number = error};
}

struct outcome outcome_of_failed_setup(const char *step, int error)
{
    struct outcome outcome = {.kind = OUTCOME_SETUP_FAILED, .number = error};
    strncpy(outcome.step, step, sizeof outcome.step - 1);
    return outcome;
}

int exit_status_of(const struct outcome *outcome)
{
    switch (outcome->kind) {
    case OUTCOME_EXIT:
        return outcome->number;
    case OUTCOME_SIGNAL:
        return EXIT_SIGNAL_BASE + outcome->number;
    case OUTCOME_TIMEOUT:
        return EXIT_TIMED_OUT;
    case OUTCOME_EXEC_FAILED:
        return outcome->number == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
    case OUTCOME_SETUP_FAILED:
        break;
    }
    return EXIT_SETUP;
}

size_t write_report(const struct outcome *outcome, char line[REPORT_LENGTH])
{
    static const char *const words[] = {
        [OUTCOME_EXIT] = "exit",
        [OUTCOME_SIGNAL] = "signal",
        [OUTCOME_TIMEOUT] = "timeout",
        [OUTCOME_EXEC_FAILED] = "exec-failed",
        [OUTCOME_SETUP_FAILED] = "setup-failed",
    };
    const char *word = words[outcome->kind];
    if (outcome->kind == OUTCOME_TIMEOUT)
        return (size_t)snprintf(line, REPORT_LENGTH, "%s\n", word);
    return (size_t)snprintf(line, REPORT_LENGTH, "%s %d%s%s\n", word, outcome->number,
                            outcome->step[0] == '\0' ? "" : " ", outcome->step);
}
