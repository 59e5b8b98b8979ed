/* The mounts are made as user 0 of the first user namespace, since devpts takes nobody else. */
#include "rights.h"

#include "namespaces.h"
#include "shares.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *become_user(const struct layout *layout, int proc)
{
    const struct user wanted = {layout->uid, layout->gid}, self = {0, 0};
    if (wanted.uid == self.uid && wanted.gid == self.gid)
        return NULL;
    return unshare(CLONE_NEWUSER) == 0 && map_user(proc, &wanted, &self) ? NULL : "user";
}

const char *drop_capabilities(void)
{
    /* The kernel knows its last one: EINVAL. Root gets capabilities at an exec from this set alone. */
    for (int capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
        ;
    if (errno != EINVAL)
        return "capabilities";
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
        return "capabilities";
    return syscall(SYS_capset, &header, none) == 0 ? NULL : "capabilities";
}

const char *set_limits(const struct layout *layout)
{
    if (!bound_signals())
        return "limits";
    for (size_t index = 0; index < layout->limit_count; index++)
        if (setrlimit(layout->limits[index].resource, &layout->limits[index].values) != 0)
            return "limits";
    return NULL;
}
