/* Control groups: a process enters them, or begins its life in one. */
#ifndef CGROUPS_H
#define CGROUPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Enters a control group by its file `tasks` (version 1) or `cgroup.procs`. False if that failed; it has been said. */
bool enter_group(const char *file);

/* The same, by the directory of a group of version 2. */
bool enter_group_of(const char *directory);

/* A group of version 2, for fork_into(); -1 if it cannot be opened; it has been said. */
int open_group(const char *directory);

/* As fork(), except that the child begins in the group (-1: in ours): no lock is taken for it, and it has not lived
 * outside; and in new namespaces (CLONE_NEW..., 0: in ours). */
pid_t fork_into(int group, uint64_t namespaces);

/* Whether fork_into() failed with an errno that says that it can do nothing here: the kernel is older than 5.7, or a
 * filter does not know the call, as in containers. The group can then only be entered. */
bool cannot_fork_into(int error);

#endif
