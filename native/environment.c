/* The list is closed up in place, and a kept variable is the rest of its own text: there is nothing to allocate, and so
 * nothing that can fail halfway.
 */
#include "environment.h"

#include <string.h>
#include <unistd.h>

static const char KEPT[] = "PRAXIS_KEPT_";

static bool begins_with_any(const char *variable, const char *names)
{
    for (const char *name = names, *end = names; *end != '\0'; name = end + 1) {
        end = name + strcspn(name, ",");
        if (strncmp(variable, name, (size_t)(end - name)) == 0)
            return true;
    }
    return false;
}

bool hide_variables(void *unused, char **values)
{
    const char *names = values[0];
    (void)unused;
    for (const char *name = names, *end = names; *end != '\0'; name = end + 1)
        if ((end = name + strcspn(name, ",")) == name)
            return false;
    char **stays = environ;
    for (char **variable = environ; stays != NULL && *variable != NULL; variable++)
        if (!begins_with_any(*variable, names))
            *stays++ = *variable + (strncmp(*variable, KEPT, sizeof KEPT - 1) == 0 ? sizeof KEPT - 1 : 0);
    if (stays != NULL)
        *stays = NULL;
    return names[0] != '\0';
}
