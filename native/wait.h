/* The wait form: a command that comes over a channel, and its output back. */
#ifndef WAIT_H
#define WAIT_H

#include "layout.h"
#include "options.h"

#include <signal.h>

/* praxis-init wait [options]
 *
 * What comes over the channel, and what goes back, is in FRAMING.md. A waiter takes one call and ends with it, or with
 * its channel: what it has started never outlives either.
 */
extern const struct form wait_form;

/* The same on standard input and output, for a form that has taken charge already (command.h): `mask` is what that gave
 * it. Returns the status to leave with. */
int wait_inside(const struct layout *layout, const sigset_t *mask);

#endif
