/* A user has one share of pending signals and of inotify's watches, whatever namespaces the user's processes are in:
 * what a tool took of it would be missing for the server, its other tools, and the user's own programs.
 */
#include "shares.h"

#include "files.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PART = 4 }; /* a command gets one of so many */

void drop_groups(void)
{
    (void)!setgroups(0, NULL);
}

bool become_root_in(const gid_t *groups, size_t count)
{
    return setresgid(0, 0, 0) == 0 && setgroups(count, groups) == 0 && setresuid(0, 0, 0) == 0;
}

bool forbid_cores(void)
{
    /* Not 0: where the kernel hands cores to a program (core_pattern begins with "|"), it does so at any limit but 1. */
    const struct rlimit none = {1, 1};
    return setrlimit(RLIMIT_CORE, &none) == 0 || errno == EPERM; /* lower already: no file, at least */
}

bool bound_signals(void)
{
    struct rlimit now;
    if (getrlimit(RLIMIT_SIGPENDING, &now) != 0)
        return false;
    const struct rlimit part = {now.rlim_cur / PART, now.rlim_cur / PART};
    return setrlimit(RLIMIT_SIGPENDING, &part) == 0;
}

static void bound(int proc, const char *total, const char *own)
{
    char text[32];
    if (read_text(proc, total, text, sizeof text) <= 0)
        return;
    snprintf(text, sizeof text, "%ld", strtol(text, NULL, 10) / PART);
    write_text(proc, own, text);
}

void bound_watches(int proc)
{
    /* The first of each pair is the user's in every namespace; the second one is of the namespace that we are in. */
    bound(proc, "sys/fs/inotify/max_user_instances", "sys/user/max_inotify_instances");
    bound(proc, "sys/fs/inotify/max_user_watches", "sys/user/max_inotify_watches");
}
