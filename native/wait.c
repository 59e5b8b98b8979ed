/* The wait form: says hello on a channel, takes one call, runs it, tells how it ended. */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE "x86_64"
#elif defined(__aarch64__)
#define MACHINE "aarch64"
#endif

static struct relay relay; /* half a megabyte: no stack has to be that large */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (channel < 0 || connect(channel, (struct sockaddr *)&address, sizeof address) != 0)
        return -1;
    return channel;
}

static void say_hello(void)
{
    uint8_t hello[12 + sizeof MACHINE - 1];
    put_u32(hello, FRAMING_VERSION);
    put_u32(hello + 4, (uint32_t)getpid());
    put_u32(hello + 8, STDIN_WINDOW);
    memcpy(hello + 12, MACHINE, sizeof MACHINE - 1);
    relay_queue(&relay, FRAME_HELLO, hello, sizeof hello);
}

/* Until a call is complete or the channel is over; false when there will be none, and nobody to tell. */
static bool receive_call(int64_t patience)
{
    int64_t due = patience == NO_DEADLINE ? NO_DEADLINE : now() + patience;
    while (!relay.call.complete && relay.refusal == NULL) {
        int sig = relay_wait(&relay, due);
        if (sig == SIGTERM || sig == SIGINT || sig == SIGHUP || sig == SIGQUIT)
            return false;
        if (sig == SIGCHLD) /* as PID 1 we inherit what others leave */
            while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        if (relay.lost || (due != NO_DEADLINE && now() >= due))
            return false;
    }
    return true;
}

/* Whether this kernel is the one whose device and inode numbers we were given: another one's, as a virtual machine's or
 * of a kernel in user space, are others for the same files. */
static bool is_same_boot(const char *boot)
{
    char here[64];
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, here, sizeof here - 1);
    close(file);
    return length > 0 && (size_t)length >= strlen(boot) && memcmp(here, boot, strlen(boot)) == 0;
}

/* Who mounted them went by a path, at which another file or directory may have lain by then than the one that was
 * judged. False if so; what our user may not look at, the command may not either. */
static bool sources_are_right(const struct wait_options *options)
{
    if (options->sources == NULL || !is_same_boot(options->boot))
        return true;
    for (char **source = options->sources; *source != NULL; source += 3) {
        struct stat status;
        char *rest;
        uintmax_t device = strtoumax(source[1], &rest, 10), inode = strtoumax(rest + 1, NULL, 10);
        if (stat(source[2], &status) != 0 ? errno != EACCES : status.st_dev != device || status.st_ino != inode)
            return false;
    }
    return true;
}

static struct outcome run_call(const struct wait_options *options, const sigset_t *mask)
{
    struct call *call = &relay.call;
    if (call->failed)
        return call->failure;
    if (!sources_are_right(options))
        return failed_setup("mounts", ESTALE);
    int streams[3];
    struct command command = {
        .words = call->words.items,
        .environment = call->variables.items,
        .directory = call->directory,
        .streams = streams,
        .no_network = (call->flags & CALL_NO_NETWORK) != 0,
        .no_new_privileges = (call->flags & CALL_NO_NEW_PRIVILEGES) != 0,
        .filter = call->filter,
    };
    struct started started;
    const char *step = relay_make_pipes(&relay, streams);
    int64_t start = now();
    if (step == NULL)
        step = start_command(&command, mask, &started);
    if (step != NULL)
        return failed_setup(step, errno);
    relay_started(&relay, streams);
    int64_t deadline = call->timeout == NO_DEADLINE ? NO_DEADLINE : start + call->timeout;
    struct ending ending = supervise(started.pid, deadline, call->kill_after, &relay, NULL);
    return outcome_of(&started, &ending);
}

static void tell_end(const struct outcome *outcome)
{
    uint8_t end[8 + STEP_LENGTH];
    size_t step = strlen(outcome->step);
    put_u32(end, (uint32_t)outcome->kind);
    put_u32(end + 4, (uint32_t)outcome->number);
    memcpy(end + 8, outcome->step, step);
    relay_queue(&relay, FRAME_END, end, (uint32_t)(8 + step));
}

int wait_for_call(const struct wait_options *options)
{
    sigset_t inherited;
    take_charge(&inherited);
    int in = STDIN_FILENO, out = STDOUT_FILENO;
    if (options->socket != NULL && (in = out = connect_to(options->socket)) < 0) {
        complain("cannot connect to", options->socket, errno);
        return EXIT_SETUP;
    }
    const char *step = relay_open(&relay, in, out);
    if (step == NULL)
        step = keep_the_tree();
    if (step != NULL) {
        complain("cannot set up", step, errno);
        return EXIT_SETUP;
    }
    say_hello();
    if (!receive_call(options->patience))
        return relay.call.began ? EXIT_SETUP : 0;
    if (relay.refusal == NULL) {
        struct outcome outcome = run_call(options, &inherited);
        relay_flush(&relay); /* all output first */
        if (!relay_is_over(&relay))
            tell_end(&outcome);
    }
    if (relay.refusal != NULL)
        relay_queue(&relay, FRAME_REFUSED, (const uint8_t *)relay.refusal, (uint32_t)strlen(relay.refusal));
    relay_flush(&relay);
    if (relay_is_over(&relay))
        return EXIT_SETUP;
    relay_linger(&relay);
    return 0;
}
