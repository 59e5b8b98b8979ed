/* What a command is kept from: the network, the processes outside of it, and praxis-init itself.
 *
 * All return NULL, or the name of the step that failed, with errno set.
 */
#ifndef CONFINE_H
#define CONFINE_H

#include <sys/types.h>

/* No sockets but those of AF_UNIX, for this process and all that it starts; implies no new privileges. To be called
 * before the fork, so that we are no way to the network either. */
const char *refuse_network(void);

/* These three are for the command only, before its exec. */

/* Besides refuse_network(): what would reach the network through a process that runs without the filter. */
const char *seal_off_from_others(void);

/* In a network that is the machine's: no abstract sockets of other programs, which no mount hides.
 * Needs Linux 6.12; nothing happens on an older one. */
const char *keep_off_abstract_sockets(void);

/* The command, in our pid namespace, cannot end us: `init` is our process id. */
const char *shield(pid_t init);

#endif
