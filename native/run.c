/* The command has our own streams, which are not ours any more once it runs: the readers of their other ends must see
 * when the command closes them. Where they are kept in files it has pipes, and ours carry what is shown of them.
 */
#include "run.h"

#include "capture.h"
#include "command.h"
#include "diagnostics.h"
#include "environment.h"
#include "events.h"
#include "outcome.h"
#include "seccomp.h"
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct run_options {
    int64_t timeout;    /* nanoseconds, or NO_DEADLINE */
    int64_t kill_after; /* nanoseconds */
    bool no_network;
    bool no_new_privileges;
    struct filter filter;
    pid_t parent;               /* 0: none */
    bool plain_status;
    const char *report;         /* a path, or the number of a descriptor; NULL: none */
    const char *output_to[2];   /* files; NULL: the command has our streams */
    char **command;             /* argv, NULL at its end */
};

static bool take_filter(void *where, char **values)
{
    struct filter *filter = where;
    return filter->instructions == NULL && filter_parse(filter, values[0]) == NULL;
}

#define PLACE(member) offsetof(struct run_options, member)
#define MORE "\n                         " /* a further line of the help */
static const struct option options[] = {
    /* 0 is refused: timeout(1) reads it as "no limit", a deadline that has just passed means the opposite. */
    {"--timeout", "SECONDS", 1, take_positive_seconds, PLACE(timeout),
     "end the whole process tree when they have passed (SIGTERM, then SIGKILL)"},
    {"--kill-after", "SECONDS", 1, take_seconds, PLACE(kill_after),
     "time between SIGTERM and SIGKILL (default 2; 0: SIGKILL at once)"},
    {"--no-network", NULL, 0, take_flag, PLACE(no_network),
     "no sockets but AF_UNIX, no io_uring, no new privileges"},
    {"--no-new-privileges", NULL, 0, take_flag, PLACE(no_new_privileges),
     "set-user-id programs and file capabilities give nothing"},
    {"--filter", "HEX", 1, take_filter, PLACE(filter),
     "a seccomp filter for the command and all it starts, as an array of struct sock_filter in" MORE
     "hexadecimal; no new privileges"},
    {"--hide", "NAME,NAME...", 1, hide_variables, 0,
     "no variables whose names begin so; of what is called PRAXIS_KEPT_NAME the command gets" MORE
     "NAME: for variables that the program which starts us adds"},
    {"--parent", "PID", 1, take_pid, PLACE(parent),
     "end the tree when the parent process, which must be PID, dies; a command without new" MORE
     "privileges cannot end praxis-init by a signal, by tracing or by its limits then"},
    {"--report", "FD|PATH", 1, take_text, PLACE(report),
     "write how it ended, as one line, to a descriptor (3 or more) or a file:" MORE
     "exit N | signal N | timeout | exec-failed ERRNO | setup-failed ERRNO STEP"},
    {"--stdout", "FILE", 1, take_text, PLACE(output_to[0]),
     "keep what the command writes in this file; its first 256 KiB also go to our own stream," MORE
     "as far as somebody takes them at once; needs --stderr"},
    {"--stderr", "FILE", 1, take_text, PLACE(output_to[1]), "the same for the other stream; needs --stdout"},
    {"--plain-status", NULL, 0, take_flag, PLACE(plain_status),
     "exit with 125 instead of 128 to 191, which some callers (Dagger) take for a failure of" MORE
     "their own; needs --report, which tells what it was"},
    {0},
};

/* The report's descriptor, never inherited by the command; -1 and errno if it cannot be opened. */
static int open_report(const char *where)
{
    if (where[strspn(where, "0123456789")] != '\0')
        return open(where, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
    unsigned long long descriptor;
    if (!is_number(where, INT_MAX, &descriptor)) {
        errno = EBADF;
        return -1;
    }
    if (descriptor <= STDERR_FILENO) { /* close-on-exec would take the command's own stream away */
        errno = EINVAL;
        return -1;
    }
    return fcntl((int)descriptor, F_SETFD, FD_CLOEXEC) == 0 ? (int)descriptor : -1;
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

static int move_output(void *capture, int64_t due)
{
    return capture_wait(capture, due);
}

static struct outcome run_to_its_end(const struct run_options *given, int64_t start, const sigset_t *mask)
{
    struct command command = {
        .words = given->command,
        .no_network = given->no_network,
        .no_new_privileges = given->no_new_privileges,
        .filter = given->filter,
        /* Where we are not PID 1; and only without new privileges, as Landlock demands of who is not root. */
        .shields_us = given->parent != 0 &&
                      (given->no_new_privileges || given->no_network || given->filter.instructions != NULL),
        .tells_failure = true,
        .shares_session = given->parent != 0,
    };
    struct started started;
    struct capture capture;
    const struct pump pump = {&capture, move_output, NULL};
    int streams[3];
    bool captures = given->output_to[0] != NULL;
    const char *step = end_with(given->parent);
    if (step == NULL)
        step = keep_the_tree();
    if (step == NULL && captures) {
        step = capture_open(&capture, given->output_to, streams);
        command.streams = streams;
    }
    if (step == NULL)
        step = start_command(&command, mask, &started);
    if (step != NULL)
        return outcome_of_failed_setup(step, errno);

    /* Not ours to hold: the other ends would not see the command close its own. */
    close(STDIN_FILENO);
    if (captures)
        capture_started(&capture, streams);
    else
        close(STDOUT_FILENO);
    const struct time_limits limits = {moment_after(start, given->timeout), given->kill_after};
    struct ending ending = supervise(started.pid, &limits, captures ? &pump : NULL);
    if (captures) {
        capture_rest(&capture);
        if (capture.error != 0)
            return outcome_of_failed_setup("output", capture.error);
    }
    return outcome_of_command(&started, &ending);
}

static void report(int descriptor, const struct outcome *outcome)
{
    char line[REPORT_LENGTH];
    size_t length = write_report(outcome, line);
    if (descriptor >= 0 && write(descriptor, line, length) != (ssize_t)length)
        complain("cannot write the report", NULL, errno);
}

static int run_command(const struct run_options *given)
{
    int64_t start = now();
    sigset_t inherited;
    take_charge(&inherited);

    int report_to = -1;
    if (given->report != NULL && (report_to = open_report(given->report)) < 0)
        return fail_setup("cannot set up", "report", errno);
    struct outcome outcome = run_to_its_end(given, start, &inherited);
    if (outcome.kind == OUTCOME_SETUP_FAILED)
        complain("cannot set up", outcome.step, outcome.number);
    report(report_to, &outcome);
    int status = exit_status_of(&outcome);
    bool hidden = given->plain_status && status >= EXIT_SIGNAL_BASE && status <= EXIT_SIGNAL_LAST;
    return hidden ? EXIT_SETUP : status;
}

static int run(char **arguments)
{
    struct run_options given = {.timeout = NO_DEADLINE, .kill_after = 2 * NANOSECONDS_PER_SECOND};
    char **command = take_options(options, &given, arguments);
    if (command == NULL)
        return EXIT_SETUP;
    if (*command != NULL && strcmp(*command, "--") == 0)
        command++;
    if (*command == NULL)
        return refuse_usage("no command given", NULL);
    if ((given.output_to[0] == NULL) != (given.output_to[1] == NULL))
        return refuse_usage("--stdout and --stderr go together", NULL);
    if (given.plain_status && given.report == NULL)
        return refuse_usage("--plain-status needs --report", NULL);
    given.command = command;
    return run_command(&given);
}

const struct form run_form = {
    .name = "run",
    .usage = "[options] [--] command [argument...]",
    .summary = "runs the command, reaps every process it leaves, and lets none outlive it.",
    .options = options,
    .statuses = "the command's own; 124 the deadline passed; 125 praxis-init failed; 126 the command could\n"
                "not be executed; 127 it was not found; 128+N it died of signal N. Only the report tells a command that\n"
                "itself exits 124 to 127 from these.",
    .run = run,
};
