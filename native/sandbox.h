/* The sandbox form: a command, or a waiter for one, in namespaces and a file system of its own. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "options.h"

/* praxis-init sandbox --layout FD [--reply FD] [--parent PID]
 * praxis-init sandbox --standby [--parent PID]
 *
 * What is laid out, and the command, come as one message; what becomes of it goes back in frames. FRAMING.md has both.
 */
extern const struct form sandbox_form;

#endif
