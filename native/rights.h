/* What a process of a sandbox may do: as whom, with which rights, within which limits. */
#ifndef RIGHTS_H
#define RIGHTS_H

#include "layout.h"

/* All return NULL, or the name of the step that failed, with errno set. */

/* Becomes the layout's user, in a user namespace within the one that the mounts belong to: no right here counts over
 * them. Nothing where the layout's user is who we are already. `proc`: a /proc that shows this process. */
const char *become_user(const struct layout *layout, int proc);

/* No capabilities, and no way to any: also for whatever is executed. */
const char *drop_capabilities(void);

const char *set_limits(const struct layout *layout);

#endif
