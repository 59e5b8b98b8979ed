/* Two processes of ours. The outer one takes the message in, starts the inner one in its namespaces, passes signals on
 * and ends as it does. The inner one is PID 1 of the sandbox: it lays everything out, gives up its rights, and then runs
 * and supervises the command as the other forms do. Neither can be left behind: the inner one ends with the outer one,
 * and with it, being PID 1, all that is in the sandbox.
 */
#include "sandbox.h"

#include "arrange.h"
#include "call.h"
#include "cgroups.h"
#include "command.h"
#include "diagnostics.h"
#include "events.h"
#include "frames.h"
#include "layout.h"
#include "namespaces.h"
#include "outcome.h"
#include "places.h"
#include "reply.h"
#include "rights.h"
#include "shares.h"
#include "standby.h"
#include "supervise.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALL_PIDFD_OPEN 434

/* Behind its end, of a sandbox that is to stay: to take one down is work for a processor, which the server needs then for
 * the answer. */
static const int64_t STAY = NANOSECONDS_PER_SECOND / 125;

enum { NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS }; /* of every sandbox */

struct sandbox_options {
    int message, reply; /* descriptors; reply -1: none */
    pid_t parent;       /* 0: none */
    bool stands_by;
};

static bool take_descriptor(void *where, char **values)
{
    unsigned long long number;
    if (!is_number(values[0], INT_MAX, &number) || number <= STDERR_FILENO)
        return false;
    *(int *)where = (int)number;
    return true;
}

static const struct option options[] = {
    {"--layout", "FD", 1, take_descriptor, offsetof(struct sandbox_options, message),
     "the descriptor (3 or more) of the message that says what the sandbox is, and the command"},
    {"--reply", "FD", 1, take_descriptor, offsetof(struct sandbox_options, reply),
     "write how it ended, in frames, to this descriptor; a sandbox that waits does so on\n"
     "                         standard output"},
    {"--parent", "PID", 1, take_pid, offsetof(struct sandbox_options, parent),
     "start nothing unless the parent process is PID"},
    {"--standby", NULL, 0, take_flag, offsetof(struct sandbox_options, stands_by),
     "make the namespaces (without network, and not yet that of mounts), and wait on standard input,\n"
     "                         a unix socket, for the descriptors"},
    {0},
};

/* The message, and what the two processes share of it. */
static struct {
    struct frame_reader reader;
    struct layout layout;
    struct call call;
} given;

static const char *take_frame(const struct frame *frame)
{
    if (!given.layout.complete)
        return layout_take(&given.layout, frame);
    /* Out here, such a file would lie in the machine's own file system. */
    if (frame->type == FRAME_FILE || frame->type == FRAME_FILE_DATA ||
        (frame->type >= FRAME_TREE && frame->type <= FRAME_FILE_HOLE))
        return "a file in a sandbox's call";
    return call_take(&given.call, frame);
}

static bool is_whole(void)
{
    return given.layout.complete && ((given.layout.flags & LAYOUT_WAITS) != 0 || given.call.complete);
}

/* NULL, or why the message is refused. */
static const char *read_message(int descriptor)
{
    static char *nothing[] = {NULL};
    environ = nothing; /* the call's variables are added to ours, which are the caller's */
    layout_init(&given.layout);
    call_init(&given.call);
    while (!is_whole()) {
        uint8_t *where;
        size_t room = frame_reader_room(&given.reader, &where);
        ssize_t count = read(descriptor, where, room);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? "a layout that cannot be read" : "a layout that ends too early";
        frame_reader_took(&given.reader, (size_t)count);
        struct frame frame;
        const char *refusal = NULL;
        while (refusal == NULL && !is_whole() && frame_reader_next(&given.reader, &frame, &refusal))
            refusal = take_frame(&frame);
        if (refusal != NULL)
            return refusal;
    }
    return NULL;
}

/* What the inner process has from the outer one. */
struct inside {
    int reply, life; /* life: a pidfd of the outer process */
    int proc;
    bool is_ahead;       /* it was there before the message: settled, but with the mounts of outside */
    bool enters_group;   /* of version 2, where the kernel lets no process begin in it, or it was there before */
    struct user outside; /* who we are there */
    int mapped;          /* comes to its end, with a byte, when the outer process has set the users; -1: it does not */
    sigset_t mask;
};

/* To be said again whenever rights were gained, as in a user namespace: the kernel forgets it then. */
static bool ends_with_the_outer_one(int life)
{
    struct pollfd polled = {.fd = life, .events = POLLIN};
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && poll(&polled, 1, 0) == 0;
}

static bool enter_groups(bool of_version_2)
{
    for (size_t index = 0; index < given.layout.group_count; index++) {
        const struct group *group = &given.layout.groups[index];
        if (group->version == 2 && !of_version_2)
            continue;
        int file = group->version == 1 ? group->descriptor
                                       : openat(group->descriptor, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (file < 0 || write(file, "0", 1) != 1)
            return false;
    }
    return true;
}

/* Of the message's descriptors one that stayed open would be a way around every mount. */
static bool keep_only(int reply)
{
    unsigned first = STDERR_FILENO + 1;
    if (reply > STDERR_FILENO) {
        if ((unsigned)reply > first && syscall(SYS_close_range, first, (unsigned)reply - 1, 0) != 0)
            return false;
        first = (unsigned)reply + 1;
    }
    return syscall(SYS_close_range, first, ~0U, 0) == 0;
}

/* Only from outside can more than one user be set. */
static bool take_users(const struct inside *inside)
{
    const struct user root = {0, 0};
    uint8_t said;
    if (inside->mapped < 0)
        return map_user(inside->proc, &root, &inside->outside);
    return read(inside->mapped, &said, sizeof said) == sizeof said &&
           become_root_in(given.layout.memberships, given.layout.membership_count);
}

/* What is the same whatever the layout is. */
static const char *settle(struct inside *inside, bool has_host_network)
{
    inside->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (inside->proc < 0 || !take_users(inside))
        return "user-namespace";
    bound_watches(inside->proc);
    return has_host_network || raise_loopback() ? NULL : "network";
}

static const char *lay_out(struct inside *inside, const char **where)
{
    const struct layout *layout = &given.layout;
    if (!enter_groups(inside->enters_group))
        return "groups";
    const char *step = inside->is_ahead ? NULL : settle(inside, (layout->flags & LAYOUT_HOST_NETWORK) != 0);
    if (step == NULL && inside->is_ahead && unshare(CLONE_NEWNS) != 0)
        step = "namespaces";
    /* The group that it has begun in is the top of what it sees; where there are no such namespaces, there is none. */
    if (step == NULL && unshare(CLONE_NEWCGROUP) != 0 && errno != EINVAL && errno != ENOSYS)
        step = "namespaces";
    if (step == NULL && sethostname(layout->host_name, strlen(layout->host_name)) != 0)
        step = "host-name";
    if (step == NULL)
        step = arrange(layout, where);
    if (step == NULL) {
        *where = layout->directory;
        step = chdir(layout->directory) == 0 ? NULL : "directory";
    }
    if (step == NULL) {
        *where = NULL;
        step = become_user(layout, inside->proc);
    }
    if (step == NULL && !ends_with_the_outer_one(inside->life))
        _exit(EXIT_SETUP);
    if (step == NULL)
        step = set_limits(layout);
    if (step == NULL && !keep_only(inside->reply))
        step = "descriptors";
    if (step == NULL)
        step = drop_capabilities();
    return step;
}

/* `is_gone`: whether nothing of the command is left. */
static struct outcome run_call(const sigset_t *mask, bool *is_gone)
{
    const struct command command = {
        .words = given.call.words.items,
        .environment = given.call.variables.items,
        .no_network = (given.call.flags & CALL_NO_NETWORK) != 0,
        .no_new_privileges = true,
        .filter = given.call.filter,
        .has_host_network = (given.layout.flags & LAYOUT_HOST_NETWORK) != 0,
    };
    struct started started;
    int64_t start = now();
    const char *step = keep_the_tree();
    if (step == NULL)
        step = start_command(&command, mask, &started);
    *is_gone = true;
    if (step != NULL)
        return outcome_of_failed_setup(step, errno);
    /* Not ours to hold: the other ends would not see the command close its own. */
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    const struct time_limits limits = {moment_after(start, given.call.timeout), given.call.kill_after};
    struct ending ending = supervise(started.pid, &limits, NULL);
    *is_gone = !ending.leaves_some;
    return outcome_of_command(&started, &ending);
}

static void stay(void)
{
    int64_t due = now() + STAY;
    close(STDERR_FILENO); /* who waits for its end waits for the command, not for us */
    while (signal_until(due) == SIGCHLD) /* of what has been reaped */
        ;
}

static int be_inside(struct inside *inside)
{
    const char *where = NULL;
    if (!ends_with_the_outer_one(inside->life))
        return EXIT_SETUP;
    const char *step = lay_out(inside, &where);
    if (step != NULL) {
        struct outcome failed = outcome_of_failed_setup(step, errno);
        reply_failure(inside->reply, &failed, where);
        return EXIT_SETUP;
    }
    if ((given.layout.flags & LAYOUT_WAITS) != 0) {
        note_places(&given.layout);
        step = given.layout.filter.instructions != NULL ? put_filter(&given.layout.filter) : NULL;
        if (step == NULL)
            return wait_inside(&given.layout, &inside->mask);
        struct outcome failed = outcome_of_failed_setup(step, errno);
        reply_failure(inside->reply, &failed, NULL);
        return EXIT_SETUP;
    }
    bool is_gone;
    struct outcome outcome = run_call(&inside->mask, &is_gone);
    if (outcome.kind == OUTCOME_SETUP_FAILED)
        reply_failure(inside->reply, &outcome, NULL);
    else if (is_gone) /* else the kernel keeps us, and so the outer one, until it is: who reads no end waits for that */
        reply_end(inside->reply, &outcome);
    if ((given.layout.flags & LAYOUT_STAYS) != 0)
        stay();
    return exit_status_of(&outcome);
}

static int group_of_version_2(void)
{
    for (size_t index = 0; index < given.layout.group_count; index++)
        if (given.layout.groups[index].version == 2)
            return given.layout.groups[index].descriptor;
    return -1;
}

/* The inner process, or -1; twice where only the group cannot be begun in. */
static pid_t start_inside(struct inside *inside)
{
    uint64_t namespaces = NAMESPACES | CLONE_NEWNS;
    if ((given.layout.flags & LAYOUT_HOST_NETWORK) == 0)
        namespaces |= CLONE_NEWNET;
    int group = group_of_version_2();
    pid_t child = fork_into(group, namespaces);
    if (child < 0 && group >= 0 && cannot_fork_into(errno)) {
        inside->enters_group = true;
        child = fork_into(-1, namespaces);
    }
    return child;
}

/* Passes signals on until the inner process has ended; the status to leave with. */
static int stand_outside(pid_t child)
{
    syscall(SYS_close_range, 0U, ~0U, 0U); /* who waits for the end of a stream waits for the command, not for us */
    for (;;) {
        struct ending ending = {.command_ended = true};
        int sig = signal_until(NO_DEADLINE);
        if (waitpid(child, &ending.status, WNOHANG) == child) {
            struct outcome outcome = outcome_of_ending(&ending);
            return exit_status_of(&outcome);
        }
        if (sig == SIGTERM || sig == SIGINT || sig == SIGHUP || sig == SIGQUIT)
            kill(child, sig);
    }
}

static int fail(int reply, const char *step)
{
    struct outcome failed = outcome_of_failed_setup(step, errno);
    reply_failure(reply, &failed, NULL);
    return EXIT_SETUP;
}

/* False where the parent is gone already, with which this ends. */
static bool take_over(struct inside *inside, pid_t parent)
{
    take_charge(&inside->mask);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    return parent == 0 || getppid() == parent;
}

/* 0, or the status to leave with. */
static int take_message(int message, int reply, struct inside *inside)
{
    const char *refusal = read_message(message);
    inside->reply = reply;
    if ((given.layout.flags & LAYOUT_WAITS) != 0 && inside->reply < 0)
        inside->reply = STDOUT_FILENO;
    if (inside->reply > STDERR_FILENO && fcntl(inside->reply, F_SETFD, FD_CLOEXEC) != 0)
        return fail_setup("cannot set up", "reply", errno);
    if (refusal == NULL && inside->is_ahead && (given.layout.flags & ~(uint32_t)LAYOUT_STAYS) != 0)
        refusal = "a layout that needs other namespaces than were made ahead of it";
    if (refusal != NULL) {
        reply_refusal(inside->reply, refusal);
        return inside->reply < 0 ? fail_setup("refused", refusal, 0) : EXIT_SETUP;
    }
    return find_sources(&given.layout) ? 0 : fail(inside->reply, "mounts");
}

static int make_sandbox(const struct sandbox_options *chosen)
{
    struct inside inside = {.outside = {geteuid(), getegid()}, .mapped = -1};
    int users[2] = {-1, -1};
    if (!take_over(&inside, chosen->parent))
        return EXIT_SETUP;
    int status = take_message(chosen->message, chosen->reply, &inside);
    if (status != 0)
        return status;
    drop_groups();
    inside.life = (int)syscall(CALL_PIDFD_OPEN, getpid(), 0);
    if (inside.life < 0)
        return fail(inside.reply, "namespaces");
    if ((given.layout.flags & LAYOUT_HOST_USERS) != 0) {
        errno = EPERM; /* others may hold the capability to set users, and would become root by it */
        if (geteuid() != 0 || pipe2(users, O_CLOEXEC) != 0)
            return fail(inside.reply, "user-namespace");
    }
    inside.mapped = users[0];
    pid_t child = start_inside(&inside);
    if (child < 0)
        return fail(inside.reply, group_of_version_2() >= 0 && errno == EACCES ? "groups" : "user-namespace");
    if (child == 0) {
        close(users[1]); /* else its end would never come to us */
        return be_inside(&inside);
    }
    if (inside.mapped >= 0 && !(map_everybody(child) && write(users[1], "", 1) == 1)) {
        int error = errno;
        kill(child, SIGKILL); /* before it has something to say of it */
        waitpid(child, NULL, 0);
        errno = error;
        return fail(inside.reply, "user-namespace");
    }
    return stand_outside(child);
}

/* The inner process first, and then what it is for. Not with mounts of its own: they would keep what is unmounted outside
 * meanwhile, and lack what is mounted there. */
static int stand_by(const struct sandbox_options *chosen)
{
    struct inside inside = {.outside = {geteuid(), getegid()}, .mapped = -1, .is_ahead = true, .enters_group = true};
    if (!take_over(&inside, chosen->parent))
        return EXIT_SETUP;
    drop_groups();
    inside.life = (int)syscall(CALL_PIDFD_OPEN, getpid(), 0);
    pid_t child = inside.life < 0 ? -1 : fork_into(-1, NAMESPACES | CLONE_NEWNET);
    if (child != 0)
        return child < 0 ? EXIT_SETUP : stand_outside(child);
    int first[2], *const ours[] = {&inside.life, &inside.proc, NULL};
    if (!ends_with_the_outer_one(inside.life) || settle(&inside, false) != NULL || !receive_descriptors(first, ours))
        return EXIT_SETUP;
    int status = take_message(first[1], first[0], &inside);
    return status != 0 ? status : be_inside(&inside);
}

static int sandbox(char **arguments)
{
    struct sandbox_options chosen = {.message = -1, .reply = -1};
    char **rest = take_options(options, &chosen, arguments);
    if (rest == NULL)
        return EXIT_SETUP;
    if (*rest != NULL)
        return refuse_usage("unknown option", *rest);
    if (chosen.stands_by)
        return stand_by(&chosen);
    if (chosen.message < 0)
        return refuse_usage("no --layout given", NULL);
    return make_sandbox(&chosen);
}

const struct form sandbox_form = {
    .name = "sandbox",
    .usage = "[options]",
    .summary = "runs a command in namespaces and a file system of its own, or waits there for one, as a message says;\n"
               "lets nothing outlive it.",
    .options = options,
    .statuses = "as for run; the reply tells what they were.",
    .run = sandbox,
};
