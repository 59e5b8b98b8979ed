/* The run form: starts the command, has it supervised, and reports how it ended. */
#include "praxis_init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

/* A stream that was closed stays closed for the command, but its number must not go to a descriptor of ours. */
static void occupy_closed_streams(void)
{
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0)
            open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* takes the lowest number free: this one */
}

/* An inherited network socket would be a way around the filter. */
static void keep_only_streams(void)
{
    const unsigned close_on_exec = 4; /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */
    if (syscall(SYS_close_range, 3U, ~0U, close_on_exec) == 0)
        return;
    long most = sysconf(_SC_OPEN_MAX);
    if (most < 0 || most > 1 << 20) /* Docker's limit may be 2^30; the kernel's own default ends at 2^20 */
        most = 1 << 20;
    for (int descriptor = 3; descriptor < most; descriptor++)
        fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

struct failure {
    int error;
    char step[24]; /* empty: the exec itself */
};

static int status_of(const struct failure *failure)
{
    if (failure->step[0] != '\0')
        return EXIT_SETUP;
    return failure->error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

static _Noreturn void fail(int channel, const char *step, int error)
{
    struct failure failure = {.error = error};
    strncpy(failure.step, step, sizeof failure.step - 1);
    (void)!write(channel, &failure, sizeof failure);
    _exit(status_of(&failure));
}

/* Whether the name is a file in any folder of the PATH that we may look into. */
static bool is_on_path(const char *name)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];
    for (size_t length; path != NULL && *path != '\0'; path += length + (path[length] == ':')) {
        length = strcspn(path, ":");
        if (length + strlen(name) + 2 > sizeof file)
            continue;
        memcpy(file, path, length);
        file[length] = '/';
        strcpy(file + length + (length != 0), name); /* an empty entry is the working directory */
        if (access(file, F_OK) == 0)
            return true;
    }
    return false;
}

/* In the child. `channel` closes at the exec, so something to read there means that there was none. */
static _Noreturn void become_command(const struct run_options *options, pid_t init, const sigset_t *mask, int channel)
{
    setsid(); /* the tool's `kill 0` must reach neither us nor the server that started us */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* if we are killed, at least the command goes too */
    if (getppid() != init)
        _exit(EXIT_SETUP); /* we were killed before the line above */
    if (options->no_network) {
        keep_only_streams();
        const char *step = seal_off_from_others();
        if (step != NULL)
            fail(channel, step, errno);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(options->command[0], options->command);
    int error = errno;
    /* To execvp, a folder of the PATH that this user may not enter (root's own, in an image that now runs as nobody)
     * is a command without permission. To a shell, and to whoever reads our report, the command is just not there. */
    if (error == EACCES && strchr(options->command[0], '/') == NULL && !is_on_path(options->command[0]))
        error = ENOENT;
    complain("cannot run", options->command[0], error);
    fail(channel, "", error);
}

static int conclude(const struct ending *ending, int channel, int report_to)
{
    struct failure failure;
    if (read(channel, &failure, sizeof failure) == (ssize_t)sizeof failure) {
        bool in_exec = failure.step[0] == '\0';
        if (!in_exec)
            complain("cannot set up", failure.step, failure.error);
        report(report_to, in_exec ? "exec-failed" : "setup-failed", failure.error, in_exec ? NULL : failure.step);
        return status_of(&failure);
    }
    if (ending->timed_out) {
        report(report_to, "timeout", -1, NULL);
        return EXIT_TIMED_OUT;
    }
    if (ending->command_ended && WIFEXITED(ending->status)) {
        report(report_to, "exit", WEXITSTATUS(ending->status), NULL);
        return WEXITSTATUS(ending->status);
    }
    int sig = ending->command_ended ? WTERMSIG(ending->status) : SIGKILL;
    report(report_to, "signal", sig, NULL);
    return EXIT_SIGNAL_BASE + sig;
}

/* What must hold before the command may start; NULL, or the step that failed. */
static const char *prepare(const struct run_options *options)
{
    if (options->parent != 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) != 0)
            return "parent";
        if (getppid() != options->parent) { /* it died before the line above, or never was our parent */
            errno = ESRCH;
            return "parent";
        }
    }
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
        return "subreaper";
    /* The command may run as our own user: it must not trace us, nor open our report through /proc. Its exec makes
     * it traceable again. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return "dumpable";
    /* Before the fork, so that we are no way to the network either. */
    return options->no_network ? refuse_network() : options->no_new_privileges ? forbid_new_privileges() : NULL;
}

static int setup_failed(int report_to, const char *step, int error)
{
    complain("cannot set up", step, error);
    report(report_to, "setup-failed", error, step);
    return EXIT_SETUP;
}

int run_command(const struct run_options *options)
{
    int64_t start = now();
    sigset_t all, inherited;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &inherited);
    signal(SIGCHLD, SIG_DFL); /* ignored, as some parents leave it, the kernel would keep the statuses from us */
    occupy_closed_streams();

    int report_to = -1;
    if (options->report != NULL && (report_to = open_report(options->report)) < 0)
        return setup_failed(-1, "report", errno);
    int channel[2];
    if (pipe2(channel, O_CLOEXEC | O_NONBLOCK) != 0)
        return setup_failed(report_to, "pipe", errno);
    const char *step = prepare(options);
    if (step != NULL)
        return setup_failed(report_to, step, errno);

    pid_t self = getpid(), command = fork();
    if (command < 0)
        return setup_failed(report_to, "fork", errno);
    if (command == 0)
        become_command(options, self, &inherited, channel[1]);

    /* Not ours to hold: the other ends would not see the command close its own. */
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    close(channel[1]);
    int64_t deadline = options->timeout == NO_DEADLINE ? NO_DEADLINE : start + options->timeout;
    struct ending ending = supervise(command, deadline, options->kill_after);
    int status = conclude(&ending, channel[0], report_to);
    bool hidden = options->plain_status && status >= EXIT_SIGNAL_BASE && status <= EXIT_SIGNAL_LAST;
    return hidden ? EXIT_SETUP : status;
}
