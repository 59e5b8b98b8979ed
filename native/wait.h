/* The wait form: a command that comes over a channel, and its output back. */
#ifndef WAIT_H
#define WAIT_H

#include "options.h"

/* praxis-init wait [options]
 *
 * What comes over the channel, and what goes back, is in FRAMING.md. A waiter takes one call and ends with it, or with
 * its channel: what it has started never outlives either.
 */
extern const struct form wait_form;

#endif
