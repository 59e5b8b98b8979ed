/* What a command gets of the things that the kernel counts, or keeps, for a user and not for a namespace. */
#ifndef SHARES_H
#define SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* No supplementary groups: what they open outside would be open inside. Only who may set groups can drop them (the
 * kernel lets no plain user, since a file may be closed to a group); everybody else keeps them. */
void drop_groups(void);

/* Root, of root's group and these supplementary ones, in a user namespace that knows them; false and errno where that
 * fails. Who runs us as root may have us in another group (User= and Group= of a service), which stays outside. */
bool become_root_in(const gid_t *groups, size_t count);

/* No core file, and no program of the host's that is started for one. False and errno where that fails. */
bool forbid_cores(void);

/* No more pending signals than a part of the user's. False and errno where that fails. */
bool bound_signals(void);

/* In a user namespace of its own: no more of the user's inotify instances and watches than a part. Nothing where the
 * kernel, or what a container does to /proc/sys, does not let us. `proc`: /proc. */
void bound_watches(int proc);

#endif
