/* What is between fork and exec, and how the parent learns that there was an exec: through a pipe that the exec closes.
 * An exit status could not tell, for the command may exit with any.
 */
#include "command.h"

#include "confine.h"
#include "diagnostics.h"
#include "execute.h"
#include "shares.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A stream that was closed stays closed for the command, but its number must not go to a descriptor of ours. */
static void occupy_closed_streams(void)
{
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0)
            open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* takes the lowest number free: this one */
}

void take_charge(sigset_t *inherited)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, inherited);
    signal(SIGCHLD, SIG_DFL); /* ignored, as some parents leave it, the kernel would keep the statuses from us */
    occupy_closed_streams();
}

const char *keep_the_tree(void)
{
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
        return "subreaper";
    /* The command may run as our own user: it must not trace us, nor open our report or channel through /proc. Its
     * exec makes it traceable again. */
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? NULL : "dumpable";
}

const char *put_filter(const struct filter *filter)
{
    return forbid_cores() ? install_filter(filter) : "limits";
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

/* What the child says through the pipe when it does not become the command. */
struct failure {
    int error;
    char step[STEP_LENGTH]; /* empty: the exec itself */
};

static _Noreturn void fail(int channel, const char *step, int error)
{
    struct failure failure = {.error = error};
    strncpy(failure.step, step, sizeof failure.step - 1);
    (void)!write(channel, &failure, sizeof failure);
    _exit(EXIT_SETUP); /* the status is not looked at: the failure is */
}

/* The tool's `kill 0` must reach neither us nor the server that started us, and no terminal of the server's be the
 * tool's. A session is a group for the scheduler too (sched(7), autogroup), and on a busy machine a new one waits for
 * its first turn as long as all the rest takes: where there is no terminal to be kept from, a process group does. */
static void separate(bool shares_session)
{
    if (shares_session && open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC) < 0 && errno == ENXIO)
        setpgid(0, 0);
    else
        setsid();
}

/* In the child. `channel` closes at the exec, so something to read there means that there was none. */
static _Noreturn void become(const struct command *command, pid_t init, const sigset_t *mask, int channel)
{
    separate(command->shares_session);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* if we are killed, at least the command goes too */
    if (getppid() != init)
        _exit(EXIT_SETUP); /* we were killed before the line above */
    for (int stream = STDIN_FILENO; command->streams != NULL && stream <= STDERR_FILENO; stream++)
        if (dup2(command->streams[stream], stream) < 0)
            fail(channel, "streams", errno);
    if (command->no_network) {
        keep_only_streams();
        const char *step = seal_off_from_others();
        if (step != NULL)
            fail(channel, step, errno);
    }
    const char *step = command->shields_us ? shield(init) : NULL;
    if (step == NULL && command->has_host_network)
        step = keep_off_abstract_sockets();
    if (step != NULL)
        fail(channel, step, errno);
    if (command->environment != NULL)
        environ = command->environment;
    sigprocmask(SIG_SETMASK, mask, NULL);
    execute(command->words);
    int error = errno;
    if (command->tells_failure)
        complain("cannot run", command->words[0], error);
    fail(channel, "", error);
}

const char *start_command(const struct command *command, const sigset_t *mask, struct started *started)
{
    int channel[2];
    if (pipe2(channel, O_CLOEXEC | O_NONBLOCK) != 0)
        return "pipe";
    /* Before the fork, so that we are no way to the network either. */
    const char *step = command->no_network          ? refuse_network()
                       : command->no_new_privileges ? forbid_new_privileges()
                                                    : NULL;
    if (step == NULL && command->filter.instructions != NULL)
        step = put_filter(&command->filter);
    if (step != NULL)
        return step;
    pid_t self = getpid(), pid = fork();
    if (pid < 0)
        return "fork";
    if (pid == 0)
        become(command, self, mask, channel[1]);
    close(channel[1]);
    *started = (struct started){.pid = pid, .failure = channel[0]};
    return NULL;
}

struct outcome outcome_of_command(const struct started *started, const struct ending *ending)
{
    struct failure failure;
    if (read(started->failure, &failure, sizeof failure) != (ssize_t)sizeof failure)
        return outcome_of_ending(ending);
    return failure.step[0] == '\0' ? outcome_of_failed_exec(failure.error)
                                   : outcome_of_failed_setup(failure.step, failure.error);
}
