/* The join form: into control groups and a mount namespace, and then only the command. */
#ifndef JOIN_H
#define JOIN_H

#include "options.h"

/* praxis-init join [options] FILE... -- command [argument...]
 *
 * It supervises nothing: it is for a command that others look after (bubblewrap, a process of ours), and that must not
 * have lived one moment outside the groups that bound it.
 */
extern const struct form join_form;

#endif
