/* The run form: a command of our own words, supervised to its end, and a report. */
#ifndef RUN_H
#define RUN_H

#include "options.h"

/* praxis-init run [options] [--] command [argument...]
 *
 * The command has our own streams, or files that its output is kept in. Its deadline counts from the beginning of
 * praxis-init. The report says how it ended where the exit status alone could not.
 */
extern const struct form run_form;

#endif
