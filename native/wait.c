/* Says hello on a channel, takes one call, runs it, tells how it ended. Whatever goes wrong before the command begins
 * is an end like any other: our stderr is nobody's to read.
 */
#include "wait.h"

#include "command.h"
#include "diagnostics.h"
#include "environment.h"
#include "events.h"
#include "files.h"
#include "findings.h"
#include "frames.h"
#include "listener.h"
#include "outcome.h"
#include "places.h"
#include "relay.h"
#include "supervise.h"
#include "trees.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
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

struct sources {
    char **words; /* three for each: "--source", "DEVICE:INODE", the path that it must be at; NULL: there are none */
    int count;
};

struct wait_options {
    const char *socket; /* path of a unix socket; NULL: the channel is stdin and stdout, or */
    struct listener listener;
    int64_t patience;   /* nanoseconds that the call may take to come, or NO_DEADLINE */
    int64_t caller;     /* nanoseconds that the first connection may take to come */
    const char *boot;   /* the id of the kernel's boot that `sources` are of; NULL: there are none */
    struct sources sources;
    const struct layout *layout; /* of the sandbox that we wait in; NULL: in another's container */
};

/* "DEVICE:INODE", in digits. */
static bool parse_identity(const char *text, unsigned long long *device, unsigned long long *inode)
{
    const char *rest = parse_number(text, UINT64_MAX, device);
    return rest != NULL && *rest == ':' && is_number(rest + 1, UINT64_MAX, inode);
}

static bool take_source(void *where, char **values)
{
    struct sources *sources = where;
    unsigned long long device, inode;
    if (sources->count == 0)
        sources->words = values - 1;
    else if (sources->words + 3 * sources->count != values - 1) /* they are looked at where they stand */
        return false;
    sources->count++;
    return parse_identity(values[0], &device, &inode);
}

static const struct option options[] = {
    {"--socket", "PATH", 1, take_text, offsetof(struct wait_options, socket),
     "the channel is a unix socket to connect to, instead of stdin and stdout"},
    {"--listen", "ADDRESS:PORT", 1, take_address, offsetof(struct wait_options, listener),
     "the channel is one TCP connection to there, after which nobody can connect any more;\n"
     "                         another address than a loopback one needs --secret-sha256"},
    {"--secret-sha256", "HEX", 1, take_digest, offsetof(struct wait_options, listener),
     "that connection begins with the 32 bytes of which this is the digest; others are closed"},
    {"--caller", "SECONDS", 1, take_positive_seconds, offsetof(struct wait_options, caller),
     "leave quietly if nobody has connected when they have passed (default 60)"},
    {"--patience", "SECONDS", 1, take_positive_seconds, offsetof(struct wait_options, patience),
     "leave quietly if no call has come when they have passed"},
    {"--hide", "NAME,NAME...", 1, hide_variables, 0, "as for run; the call's own variables stay"},
    {"--boot", "ID", 1, take_text, offsetof(struct wait_options, boot),
     "what /proc/sys/kernel/random/boot_id says where the numbers of the sources are from;\n"
     "                         under another kernel they mean nothing, and are not looked at"},
    {"--source", "DEV:INO PATH", 2, take_source, offsetof(struct wait_options, sources),
     "start nothing unless that file or directory is at PATH; may be given again, all of\n"
     "                         them together; needs --boot"},
    {0},
};

static bool listens(const struct wait_options *given)
{
    return given->listener.address.any.sa_family != AF_UNSPEC;
}

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

/* Of a call that has begun: it may be large, and the channel slow. */
static const int64_t LONGEST_PAUSE = 60 * NANOSECONDS_PER_SECOND;

/* Until a call is complete or the channel is over; false when there will be none, and nobody to tell. */
static bool receive_call(int64_t patience)
{
    while (!relay.call.complete && relay.refusal == NULL) {
        int64_t due = patience;
        if (relay.call.began && due != NO_DEADLINE && relay.heard + LONGEST_PAUSE > due)
            due = relay.heard + LONGEST_PAUSE;
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
    ssize_t length = read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", here, sizeof here);
    return length > 0 && strncmp(here, boot, strlen(boot)) == 0;
}

/* Who mounted them went by a path, at which another file or directory may have lain by then than the one that was
 * judged. False if so; what our user may not look at, the command may not either. */
static bool sources_are_right(const struct wait_options *given)
{
    if (given->boot == NULL || !is_same_boot(given->boot))
        return true;
    for (int index = 0; index < given->sources.count; index++) {
        struct stat status;
        unsigned long long device, inode;
        char **source = given->sources.words + 3 * index;
        parse_identity(source[1], &device, &inode); /* it was one when it was taken */
        if (stat(source[2], &status) != 0 ? errno != EACCES : status.st_dev != device || status.st_ino != inode)
            return false;
    }
    return true;
}

static int move_streams(void *state, int64_t due)
{
    return relay_wait(state, due);
}

static bool has_lost_its_caller(const void *state)
{
    return relay_is_over(state);
}

/* The step and an errno do not say which file of a tree it was. */
static void tell_where(const struct call *call)
{
    char text[sizeof call->trees.where + 64];
    if (strcmp(call->failure.step, "tree") != 0)
        return;
    int length = snprintf(text, sizeof text, "%s: %s", call->trees.where, strerror(call->failure.number));
    relay_queue(&relay, FRAME_DETAIL, (const uint8_t *)text, (uint32_t)length);
}

/* `is_gone`: whether nothing of the command is left. */
static struct outcome run_call(const struct wait_options *given, const sigset_t *mask, bool *is_gone)
{
    struct call *call = &relay.call;
    *is_gone = true;
    if (call->failed) {
        tell_where(call);
        return call->failure;
    }
    trees_settle(&call->trees);
    if (!sources_are_right(given) || (given->layout != NULL && !places_are_right(given->layout)))
        return outcome_of_failed_setup("mounts", ESTALE);
    bool has_host_network = given->layout != NULL && (given->layout->flags & LAYOUT_HOST_NETWORK) != 0;
    int streams[3];
    struct command command = {
        .words = call->words.items,
        .environment = call->variables.items,
        .streams = streams,
        .no_network = (call->flags & CALL_NO_NETWORK) != 0,
        .no_new_privileges = (call->flags & CALL_NO_NEW_PRIVILEGES) != 0 || given->layout != NULL,
        .filter = call->filter,
        .has_host_network = has_host_network,
    };
    struct started started;
    const char *step = relay_make_pipes(&relay, streams);
    int64_t start = now();
    if (step == NULL)
        step = start_command(&command, mask, &started);
    if (step != NULL)
        return outcome_of_failed_setup(step, errno);
    relay_started(&relay, streams);
    const struct time_limits limits = {moment_after(start, call->timeout), call->kill_after};
    const struct pump pump = {&relay, move_streams, has_lost_its_caller};
    struct ending ending = supervise(started.pid, &limits, &pump);
    *is_gone = !ending.leaves_some;
    return outcome_of_command(&started, &ending);
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

static int wait_for_call(const struct wait_options *given, const sigset_t *mask)
{
    int in = STDIN_FILENO, out = STDOUT_FILENO;
    int64_t due = moment_after(now(), given->patience);
    const char *step = keep_the_tree();
    if (step != NULL)
        return fail_setup("cannot set up", step, errno);
    if (given->socket != NULL && (in = out = connect_to(given->socket)) < 0)
        return fail_setup("cannot connect to", given->socket, errno);
    if (listens(given)) {
        enum arrival arrival = take_connection(&given->listener, due, given->caller, &in);
        if (arrival != ARRIVAL_TAKEN)
            return arrival == ARRIVAL_NONE ? 0 : EXIT_SETUP;
        out = in;
    }
    step = relay_open(&relay, in, out);
    if (step != NULL)
        return fail_setup("cannot set up", step, errno);
    say_hello();
    if (!receive_call(due))
        return relay.call.began ? EXIT_SETUP : 0;
    if (relay.refusal == NULL) {
        bool is_gone;
        struct outcome outcome = run_call(given, mask, &is_gone);
        if (!relay_gather(&relay) || !is_gone) /* all output first */
            relay_flush(&relay);
        if (given->layout != NULL && !is_gone) /* as in sandbox.c; a container's end is its engine's to see to */
            return EXIT_SETUP;
        if (outcome.kind == OUTCOME_EXIT || outcome.kind == OUTCOME_SIGNAL)
            send_findings(&relay, is_gone);
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

static int take_call(char **arguments)
{
    /* A caller connects as soon as it sees us run. Later there is none any more, or it has given us up. */
    struct wait_options given = {.patience = NO_DEADLINE, .caller = 60 * NANOSECONDS_PER_SECOND};
    char **rest = take_options(options, &given, arguments);
    if (rest == NULL)
        return EXIT_SETUP;
    if (*rest != NULL)
        return refuse_usage("unknown option", *rest);
    if (given.socket != NULL && listens(&given))
        return refuse_usage("--socket and --listen exclude each other", NULL);
    if (given.listener.has_digest ? !listens(&given) : listens(&given) && !is_loopback(&given.listener))
        return refuse_usage("--secret-sha256 goes with --listen, and --listen beyond loopback with it", NULL);
    if ((given.boot == NULL) != (given.sources.count == 0))
        return refuse_usage("--boot and --source need each other", NULL);
    sigset_t inherited;
    take_charge(&inherited);
    return wait_for_call(&given, &inherited);
}

int wait_inside(const struct layout *layout, const sigset_t *mask)
{
    const struct wait_options given = {.patience = layout->patience, .layout = layout};
    return wait_for_call(&given, mask);
}

const struct form wait_form = {
    .name = "wait",
    .usage = "[options]",
    .summary = "says hello and waits for one call, in frames; runs it as `run` does; sends its output and its end\n"
               "back, in frames. Ends with its channel, and all that it started with it.",
    .options = options,
    .statuses = "0 the end was reported, or no call came; 125 otherwise.",
    .run = take_call,
};
