/* A plain user may make a mount namespace only within a user namespace; what is mounted there holds no more than that
 * user might do outside. */
#include "namespaces.h"

#include "files.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* A user namespace in which this process stays who it is. */
static bool make_user_namespace(void)
{
    char users[64], groups[64];
    snprintf(users, sizeof users, "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
    snprintf(groups, sizeof groups, "%u %u 1", (unsigned)getegid(), (unsigned)getegid());
    return unshare(CLONE_NEWUSER) == 0 && write_text("/proc/self/uid_map", users) &&
           write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/gid_map", groups);
}

static bool make_private_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

bool make_mount_namespace(void)
{
    return make_private_mounts() || (errno == EPERM && make_user_namespace() && make_private_mounts());
}

bool make_overlay(const char *directory, const char *size)
{
    /* Empty files count towards no size, and each takes a kilobyte of the kernel's memory. */
    enum { MAX_FILES = 256 * 1024 };
    char options[96];
    snprintf(options, sizeof options, "mode=0755,size=%s,nr_inodes=%d", size, MAX_FILES);
    /* The user namespace, even for root, keeps the layer from holding more than its user might do. */
    if (!make_user_namespace() || !make_private_mounts() || chdir(directory) != 0)
        return false;
    if (mount("tmpfs", "layer", "tmpfs", MS_NOSUID | MS_NODEV, options) != 0)
        return false;
    mode_t mask = umask(0);
    bool good = mkdir("layer/upper", 0755) == 0 && mkdir("layer/work", 0755) == 0 && mkdir("layer/root", 0755) == 0;
    umask(mask);
    /* In a user namespace overlayfs may not write its usual marks ("trusted."): without others (userxattr) a directory
     * that was removed would come back with its content. */
    return good && mount("overlay", "layer/root", "overlay", MS_NOSUID | MS_NODEV,
                         "userxattr,lowerdir=rootfs,upperdir=layer/upper,workdir=layer/work") == 0;
}
