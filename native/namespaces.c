/* A plain user may make a mount namespace only within a user namespace; what is mounted there holds no more than that
 * user might do outside. */
#include "namespaces.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

bool map_user(int proc, const struct user *inside, const struct user *outside)
{
    char users[64], groups[64];
    snprintf(users, sizeof users, "%u %u 1", (unsigned)inside->uid, (unsigned)outside->uid);
    snprintf(groups, sizeof groups, "%u %u 1", (unsigned)inside->gid, (unsigned)outside->gid);
    return write_text(proc, "self/uid_map", users) && write_text(proc, "self/setgroups", "deny") &&
           write_text(proc, "self/gid_map", groups);
}

bool map_everybody(pid_t process)
{
    static const char everybody[] = "0 0 4294967295";
    char users[32], groups[32];
    snprintf(users, sizeof users, "/proc/%d/uid_map", (int)process);
    snprintf(groups, sizeof groups, "/proc/%d/gid_map", (int)process);
    return write_text(AT_FDCWD, users, everybody) && write_text(AT_FDCWD, groups, everybody);
}

/* A user namespace in which this process stays who it is. */
static bool make_user_namespace(void)
{
    const struct user self = {geteuid(), getegid()};
    int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool good = proc >= 0 && unshare(CLONE_NEWUSER) == 0 && map_user(proc, &self, &self);
    if (proc >= 0)
        close(proc);
    return good;
}

bool cut_propagation(void)
{
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static bool make_private_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && cut_propagation();
}

bool raise_loopback(void)
{
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        return errno == EAFNOSUPPORT; /* a kernel without it has nothing to raise */
    bool good = ioctl(control, SIOCSIFFLAGS, &loopback) == 0;
    int error = errno;
    close(control);
    errno = error;
    return good;
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
