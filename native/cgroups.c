/* Moving into a group, as writing to cgroup.procs does, takes a lock of all processes that before Linux 6.18 waits for
 * every processor to pass a quiet state, 10 ms and more. Beginning there does not.
 */
#include "cgroups.h"

#include "diagnostics.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

bool enter_group(const char *file)
{
    /* Writing 0 moves the writer ("cgroup-v1": of version 1 only the calling thread, which is all there is here). */
    if (write_text(AT_FDCWD, file, "0"))
        return true;
    complain("the control group cannot be entered", file, errno);
    return false;
}

bool enter_group_of(const char *directory)
{
    char file[PATH_MAX];
    return (size_t)snprintf(file, sizeof file, "%s/cgroup.procs", directory) < sizeof file && enter_group(file);
}

int open_group(const char *directory)
{
    int group = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (group < 0)
        complain("the control group cannot be entered", directory, errno);
    return group;
}

pid_t fork_into(int group, uint64_t namespaces)
{
    struct clone_args arguments = {
        .flags = namespaces | (group < 0 ? 0 : CLONE_INTO_CGROUP),
        .exit_signal = SIGCHLD,
        .cgroup = group < 0 ? 0 : (uint64_t)group,
    };
    pid_t child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0 && group < 0 && errno == ENOSYS) /* a container's filter that does not know clone3 */
        child = (pid_t)syscall(SYS_clone, namespaces | SIGCHLD, 0, 0, 0, 0);
    return child;
}

bool cannot_fork_into(int error)
{
    return error == ENOSYS || error == EPERM || error == EINVAL || error == E2BIG;
}
