/* What is taken from a command besides system calls: the network by whichever way, rights over processes outside, and
 * over us. By Landlock where the kernel has it; each function says what holds on an older one.
 */
#include "confine.h"

#include "seccomp.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture; spelt out because a libc's headers may be older than the kernel. */
#define CALL_LANDLOCK_CREATE_RULESET 444
#define CALL_LANDLOCK_RESTRICT_SELF 446

const char *refuse_network(void)
{
    const char *failed = refuse_sockets();
    if (failed != NULL)
        return failed;
    /* An emulator may accept the filter and ignore it. */
    int escaped = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (escaped >= 0 || errno != EAFNOSUPPORT) {
        if (escaped >= 0)
            close(escaped);
        errno = EOPNOTSUPP;
        return "seccomp";
    }
    return NULL;
}

/* Root gets its capabilities back at each exec, but never more than the bounding set. */
static void drop_network_capabilities(void)
{
    const uint32_t network = UINT32_C(1) << CAP_NET_ADMIN | UINT32_C(1) << CAP_NET_RAW; /* both in the first word */
    prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0);
    prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &header, sets) != 0)
        return;
    sets[0].effective &= ~network;
    sets[0].permitted &= ~network;
    sets[0].inheritable &= ~network;
    syscall(SYS_capset, &header, sets);
}

/* The kernel's structure as it has grown; the available headers end at the first member. */
struct landlock_rules {
    uint64_t file_access, network_access, scopes;
};

enum { LANDLOCK_BIND_TCP = 1, LANDLOCK_CONNECT_TCP = 2 };
enum { LANDLOCK_ABSTRACT_SOCKETS = 1, LANDLOCK_SIGNALS = 2 };

/* No rights over a process outside: neither ptrace nor /proc/PID/mem of one without the filter (the container's own
 * PID 1 runs without it under Dagger, often as the same user), and what the scopes say. By Landlock, Linux 6.7 and
 * 6.12. `entered` tells whether the kernel has the scopes. */
static const char *enter_landlock(uint64_t network_access, uint64_t scopes, bool *entered)
{
    const struct landlock_rules rules = {.network_access = network_access, .scopes = scopes};
    long abi = syscall(CALL_LANDLOCK_CREATE_RULESET, NULL, 0, 1 /* asks for the version */);
    *entered = abi >= 6;
    if (abi < 4 || (abi < 6 && network_access == 0))
        return NULL;
    size_t size = abi < 6 ? offsetof(struct landlock_rules, scopes) : sizeof rules;
    long ruleset = syscall(CALL_LANDLOCK_CREATE_RULESET, &rules, size, 0);
    if (ruleset < 0)
        return "landlock";
    long result = syscall(CALL_LANDLOCK_RESTRICT_SELF, ruleset, 0);
    close((int)ruleset);
    return result == 0 ? NULL : "landlock";
}

const char *seal_off_from_others(void)
{
    /* On an older kernel without Landlock this is what keeps root from tracing an unfiltered process: tracing asks
     * for no fewer capabilities than the traced process has. */
    drop_network_capabilities();
    bool entered;
    return enter_landlock(LANDLOCK_BIND_TCP | LANDLOCK_CONNECT_TCP, LANDLOCK_ABSTRACT_SOCKETS | LANDLOCK_SIGNALS,
                          &entered);
}

const char *keep_off_abstract_sockets(void)
{
    bool entered;
    return enter_landlock(0, LANDLOCK_ABSTRACT_SOCKETS, &entered);
}

const char *shield(pid_t init)
{
    bool entered;
    const char *failed = enter_landlock(0, LANDLOCK_SIGNALS, &entered);
    return failed != NULL || entered ? failed : refuse_signals_to(init);
}
