/* The join form: a command that begins its life in control groups and namespaces, and nothing of ours around it. */
#include "praxis_init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool write_to(const char *file, const char *text)
{
    int descriptor = open(file, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    size_t length = strlen(text);
    bool good = write(descriptor, text, length) == (ssize_t)length;
    int error = errno;
    close(descriptor);
    errno = error;
    return good;
}

/* A user namespace in which this process stays who it is: whoever is not root may make a mount namespace there only. */
static bool make_user_namespace(void)
{
    char users[64], groups[64];
    snprintf(users, sizeof users, "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
    snprintf(groups, sizeof groups, "%u %u 1", (unsigned)getegid(), (unsigned)getegid());
    return unshare(CLONE_NEWUSER) == 0 && write_to("/proc/self/uid_map", users) &&
           write_to("/proc/self/setgroups", "deny") && write_to("/proc/self/gid_map", groups);
}

static bool keep_mounts_private(void)
{
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static bool make_mount_namespace(void)
{
    if (unshare(CLONE_NEWNS) == 0)
        return keep_mounts_private();
    return errno == EPERM && make_user_namespace() && unshare(CLONE_NEWNS) == 0 && keep_mounts_private();
}

/* A layer in memory over `directory`/rootfs, at `directory`/layer/root, in namespaces that go with the command. The user
 * namespace, even for root, keeps the layer from holding more than its user might do. In one, overlayfs may not write its
 * usual marks ("trusted."): without others (userxattr) a directory that was removed would come back with its content. */
static bool make_overlay(const char *directory, const char *size)
{
    /* Empty files count towards no size, and each takes a kilobyte of the kernel's memory. */
    enum { MAX_FILES = 256 * 1024 };
    char options[96];
    snprintf(options, sizeof options, "mode=0755,size=%s,nr_inodes=%d", size, MAX_FILES);
    if (!make_user_namespace() || unshare(CLONE_NEWNS) != 0 || !keep_mounts_private() || chdir(directory) != 0)
        return false;
    if (mount("tmpfs", "layer", "tmpfs", MS_NOSUID | MS_NODEV, options) != 0)
        return false;
    mode_t mask = umask(0);
    bool good = mkdir("layer/upper", 0755) == 0 && mkdir("layer/work", 0755) == 0 && mkdir("layer/root", 0755) == 0;
    umask(mask);
    return good && mount("overlay", "layer/root", "overlay", MS_NOSUID | MS_NODEV,
                         "userxattr,lowerdir=rootfs,upperdir=layer/upper,workdir=layer/work") == 0;
}

static int become(const struct join_options *options)
{
    if (options->overlay != NULL && !make_overlay(options->overlay, options->layer_size)) {
        complain("no layer can be mounted over", options->overlay, errno);
        return EXIT_SETUP;
    }
    if (options->overlay == NULL && options->private_mounts && !make_mount_namespace()) {
        complain("there is no mount namespace of its own", NULL, errno);
        return EXIT_SETUP;
    }
    execvp(options->command[0], options->command);
    int error = errno;
    complain("cannot execute", options->command[0], error);
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

/* A fork whose child begins in the group. Moving there, as writing to cgroup.procs does, takes a lock of all processes
 * that before Linux 6.18 waits for every processor to pass a quiet state, 10 ms and more; this does not. */
static pid_t fork_into(int group)
{
    struct clone_args arguments = {
        .flags = CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD,
        .cgroup = (uint64_t)group,
    };
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

/* Ends as the child does. */
static int mirror(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return EXIT_SETUP;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    return EXIT_SIGNAL_BASE + WTERMSIG(status);
}

/* Returns only to tell the status to leave with, or -1 where the kernel cannot (before 5.7, or a filter that does not
 * know the call, as containers have). */
static int become_in_group(const struct join_options *options)
{
    int group = open(options->group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (group < 0) {
        complain("the control group cannot be entered", options->group, errno);
        return EXIT_SETUP;
    }
    /* Both hang on the same thread: it on our caller's, the child on ours. */
    pid_t us = getpid();
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    signal(SIGCHLD, SIG_DFL);
    pid_t child = fork_into(group);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        return getppid() == us ? become(options) : EXIT_SETUP;
    }
    if (child > 0) {
        /* Whoever waits for the end of a stream waits for the command, not for us. */
        syscall(SYS_close_range, 0U, ~0U, 0U);
        return mirror(child);
    }
    if (errno == ENOSYS || errno == EPERM || errno == EINVAL || errno == E2BIG) {
        prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
        close(group);
        return -1;
    }
    complain("no process can be started in the control group", options->group, errno);
    return EXIT_SETUP;
}

static bool enter(const char *file)
{
    /* Whoever writes 0 moves itself ("cgroup-v1": of version 1 only the calling thread, which is all there is here). */
    if (write_to(file, "0"))
        return true;
    complain("the control group cannot be entered", file, errno);
    return false;
}

int join(const struct join_options *options)
{
    for (char **file = options->files; file != options->command - 1; file++)
        if (!enter(*file))
            return EXIT_SETUP;
    if (options->group != NULL) {
        char file[4096];
        int status = become_in_group(options);
        if (status >= 0)
            return status;
        if ((size_t)snprintf(file, sizeof file, "%s/cgroup.procs", options->group) >= sizeof file || !enter(file))
            return EXIT_SETUP;
    }
    return become(options);
}
