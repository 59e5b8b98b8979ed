/* The join form: enters control groups, turns away from mounts to come, and becomes the command. */
#include "praxis_init.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
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
    char options[64];
    snprintf(options, sizeof options, "mode=0755,size=%s", size);
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

int join(const struct join_options *options)
{
    for (char **file = options->files; file != options->command - 1; file++) {
        /* Whoever writes 0 moves itself ("cgroup-v1": of version 1 only the calling thread, which is all there is). */
        if (!write_to(*file, "0")) {
            complain("the control group cannot be entered", *file, errno);
            return EXIT_SETUP;
        }
    }
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
