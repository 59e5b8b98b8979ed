/* The run form: starts the command, has it supervised, and reports how it ended. */
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Writes "WORD [NUMBER] [TEXT]\n" to the report, if there is one. */
static void report(int descriptor, const char *word, int number, const char *text)
{
    char line[128], digits[12];
    size_t length = 0, count = 0;
    if (descriptor < 0)
        return;
    while (*word != '\0')
        line[length++] = *word++;
    if (number >= 0) {
        do {
            digits[count++] = (char)('0' + number % 10);
            number /= 10;
        } while (number != 0);
        line[length++] = ' ';
        while (count > 0)
            line[length++] = digits[--count];
    }
    if (text != NULL) {
        line[length++] = ' ';
        while (*text != '\0' && length < sizeof line - 1)
            line[length++] = *text++;
    }
    line[length++] = '\n';
    if (write(descriptor, line, length) != (ssize_t)length)
        complain("cannot write the report", NULL, errno);
}

/* The report's descriptor, never inherited by the command; -1 and errno if it cannot be had. */
static int open_report(const char *where)
{
    if (where[strspn(where, "0123456789")] != '\0')
        return open(where, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
    int descriptor = 0;
    for (; *where != '\0'; where++) {
        if (descriptor > INT_MAX / 100) {
            errno = EBADF;
            return -1;
        }
        descriptor = descriptor * 10 + (*where - '0');
    }
    if (descriptor <= STDERR_FILENO) { /* close-on-exec would take the command's own stream away */
        errno = EINVAL;
        return -1;
    }
    return fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 ? descriptor : -1;
}

/* Reports it, and gives the status to exit with. */
static int conclude(const struct outcome *outcome, int report_to)
{
    switch (outcome->kind) {
    case OUTCOME_EXIT:
        report(report_to, "exit", outcome->number, NULL);
        return outcome->number;
    case OUTCOME_SIGNAL:
        report(report_to, "signal", outcome->number, NULL);
        return EXIT_SIGNAL_BASE + outcome->number;
    case OUTCOME_TIMEOUT:
        report(report_to, "timeout", -1, NULL);
        return EXIT_TIMED_OUT;
    case OUTCOME_EXEC_FAILED:
        report(report_to, "exec-failed", outcome->number, NULL);
        return outcome->number == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
    case OUTCOME_SETUP_FAILED:
        complain("cannot set up", outcome->step, outcome->number);
        report(report_to, "setup-failed", outcome->number, outcome->step);
    }
    return EXIT_SETUP;
}

/* Ends us with our parent, which must be `parent`; NULL, or the step that failed. */
static const char *end_with(pid_t parent)
{
    if (parent == 0)
        return NULL;
    if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) != 0)
        return "parent";
    errno = ESRCH;
    return getppid() == parent ? NULL : "parent"; /* it died before the line above, or never was our parent */
}

static struct outcome run_to_its_end(const struct run_options *options, int64_t start, const sigset_t *mask)
{
    struct command command = {
        .words = options->command,
        .no_network = options->no_network,
        .no_new_privileges = options->no_new_privileges,
        .filter = options->filter,
        /* Where we are not PID 1; and only with new privileges given up, as Landlock demands of who is not root. */
        .shields_us = options->parent != 0 &&
                      (options->no_new_privileges || options->no_network || options->filter.instructions != NULL),
        .tells_failure = true,
    };
    struct started started;
    struct capture capture;
    int streams[3];
    bool captures = options->stdout_file != NULL;
    const char *step = end_with(options->parent);
    if (step == NULL)
        step = keep_the_tree();
    if (step == NULL && captures) {
        const char *const paths[2] = {options->stdout_file, options->stderr_file};
        step = capture_open(&capture, paths, streams);
        command.streams = streams;
    }
    if (step == NULL)
        step = start_command(&command, mask, &started);
    if (step != NULL)
        return failed_setup(step, errno);

    /* Not ours to hold: the other ends would not see the command close its own. */
    close(STDIN_FILENO);
    if (captures)
        capture_started(&capture, streams);
    else
        close(STDOUT_FILENO);
    int64_t deadline = options->timeout == NO_DEADLINE ? NO_DEADLINE : start + options->timeout;
    struct ending ending = supervise(started.pid, deadline, options->kill_after, NULL, captures ? &capture : NULL);
    if (captures) {
        capture_rest(&capture);
        if (capture.error != 0)
            return failed_setup("output", capture.error);
    }
    return outcome_of(&started, &ending);
}

int run_command(const struct run_options *options)
{
    int64_t start = now();
    sigset_t inherited;
    take_charge(&inherited);

    int report_to = -1;
    if (options->report != NULL && (report_to = open_report(options->report)) < 0) {
        complain("cannot set up", "report", errno);
        return EXIT_SETUP;
    }
    struct outcome outcome = run_to_its_end(options, start, &inherited);
    int status = conclude(&outcome, report_to);
    bool hidden = options->plain_status && status >= EXIT_SIGNAL_BASE && status <= EXIT_SIGNAL_LAST;
    return hidden ? EXIT_SETUP : status;
}
