/* A command that begins its life in control groups and namespaces, and nothing of ours around it: but for a group of
 * version 2, where a process begins in it only as a child of somebody.
 */
#include "join.h"

#include "cgroups.h"
#include "diagnostics.h"
#include "execute.h"
#include "namespaces.h"
#include "outcome.h"
#include "shares.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct layer {
    const char *directory; /* of an image, whose root gets a layer to write to; NULL: none */
    const char *size;      /* bytes, in digits */
};

struct join_options {
    bool private_mounts;
    struct layer overlay;
    const char *group; /* the directory of a control group of version 2; NULL: none */
    char **command;    /* argv, NULL at its end */
};

static bool take_layer(void *where, char **values)
{
    unsigned long long size;
    *(struct layer *)where = (struct layer){values[0], values[1]};
    return is_number(values[1], INT64_MAX, &size);
}

static const struct option options[] = {
    {"--group", "DIR", 1, take_text, offsetof(struct join_options, group),
     "run it in a control group of version 2, as a child, and end as it does"},
    {"--private-mounts", NULL, 0, take_flag, offsetof(struct join_options, private_mounts),
     "in a mount namespace of its own, where later mounts of the system do not appear"},
    {"--overlay", "DIR BYTES", 2, take_layer, offsetof(struct join_options, overlay),
     "in one where DIR/layer/root is DIR/rootfs with a layer in memory, of that size, to\n"
     "                         write to; the working directory becomes DIR"},
    {0},
};

static int become(const struct join_options *given)
{
    drop_groups();
    if (!forbid_cores() || !bound_signals())
        return fail_setup("cannot set up", "limits", errno);
    if (given->overlay.directory != NULL) {
        if (!make_overlay(given->overlay.directory, given->overlay.size))
            return fail_setup("no layer can be mounted over", given->overlay.directory, errno);
    } else if (given->private_mounts && !make_mount_namespace()) {
        return fail_setup("there is no mount namespace of its own", NULL, errno);
    }
    execute(given->command);
    struct outcome outcome = outcome_of_failed_exec(errno);
    complain("cannot execute", given->command[0], outcome.number);
    return exit_status_of(&outcome);
}

/* Ends as the child does. */
static int mirror(pid_t child)
{
    struct ending ending = {.command_ended = true};
    while (waitpid(child, &ending.status, 0) < 0)
        if (errno != EINTR)
            return EXIT_SETUP;
    struct outcome outcome = outcome_of_ending(&ending);
    if (outcome.kind == OUTCOME_SIGNAL) {
        signal(outcome.number, SIG_DFL);
        raise(outcome.number);
    }
    return exit_status_of(&outcome);
}

/* Returns only to tell the status to leave with, or -1 where the kernel lets no process begin in a group. */
static int become_in_group(const struct join_options *given)
{
    int group = open_group(given->group);
    if (group < 0)
        return EXIT_SETUP;
    /* Both hang on the same thread: it on our caller's, the child on ours. */
    pid_t us = getpid();
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    signal(SIGCHLD, SIG_DFL);
    pid_t child = fork_into(group, 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        return getppid() == us ? become(given) : EXIT_SETUP;
    }
    if (child > 0) {
        /* A reader that waits for the end of a stream waits for the command, not for us. */
        syscall(SYS_close_range, 0U, ~0U, 0U);
        return mirror(child);
    }
    if (!cannot_fork_into(errno))
        return fail_setup("no process can be started in the control group", given->group, errno);
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
    close(group);
    return -1;
}

static int join(char **arguments)
{
    struct join_options given = {0};
    char **next = take_options(options, &given, arguments);
    if (next == NULL)
        return EXIT_SETUP;
    char **files = next; /* tasks of groups of version 1, up to the "--" before the command */
    while (*next != NULL && strcmp(*next, "--") != 0)
        next++;
    if (*next == NULL || next[1] == NULL)
        return refuse_usage("no command given", NULL);
    given.command = next + 1;
    for (char **file = files; file != next; file++)
        if (!enter_group(*file))
            return EXIT_SETUP;
    if (given.group != NULL) {
        int status = become_in_group(&given);
        if (status >= 0)
            return status;
        if (!enter_group_of(given.group))
            return EXIT_SETUP;
    }
    return become(&given);
}

const struct form join_form = {
    .name = "join",
    .usage = "[options] FILE... -- command [argument...]",
    .summary = "enters the control groups whose tasks (or cgroup.procs) the files are, and becomes the command.",
    .options = options,
    .statuses = "the command's own; 125 a group could not be entered; 126 and 127 as for run.",
    .run = join,
};
