/* What a sandbox that waits has mounted, seen from within: whether all of it is still in its place when the call comes.
 *
 * The kernel drops a mount, without a word, when somebody outside removes the file or directory that it covers, or puts
 * another in its place (a new /etc/shadow, say): that would be seen then.
 */
#ifndef PLACES_H
#define PLACES_H

#include "layout.h"

#include <stdbool.h>

/* Notes what is mounted at each place of the layout; once there are no more rights to lose. */
void note_places(struct layout *layout);

/* Whether the same mounts are at all of them, and the working directory is still the one of that path. */
bool places_are_right(const struct layout *layout);

/* Whether something is mounted at the name in a directory; false too where the kernel does not tell (before 5.8). */
bool is_mounted(int folder, const char *name);

#endif
