/* The file system of a sandbox, laid out as its layout says, in a mount namespace of its own. */
#ifndef ARRANGE_H
#define ARRANGE_H

#include "layout.h"

/* Of each descriptor in the layout its path: to be asked outside of the namespace, where the paths are those that the
 * descriptors were opened by. False and errno if one has none. */
bool find_sources(struct layout *layout);

/* Lays it all out and makes it the root of this process, from which nothing of the old one can be reached; the working
 * directory becomes the new root. NULL, or the step that failed, with errno set; `*where` is the path that it failed
 * at, or NULL. */
const char *arrange(const struct layout *layout, const char **where);

#endif
