/* Our own environment, as the command gets it. */
#ifndef ENVIRONMENT_H
#define ENVIRONMENT_H

#include <stdbool.h>

/* What an option of a form takes (options.h): beginnings of names, with commas between them. It acts at once.
 *
 * Variables whose names begin so go: the program that starts us (Dagger) adds them. Where the tool has one of such a
 * name itself, it comes as PRAXIS_KEPT_NAME, and becomes NAME again.
 *
 * False where a name is empty, which would stand for all variables.
 */
bool hide_variables(void *unused, char **values);

#endif
