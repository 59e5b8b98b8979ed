/* The line on stderr is composed without stdio's buffers: it must come out whole, and there is nothing to flush when
 * praxis-init ends by _exit() or a signal. */
#include "diagnostics.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

void complain(const char *what, const char *name, int error)
{
    struct iovec parts[8];
    int count = 0;
#define PART(text) (parts[count++] = (struct iovec){(void *)(text), strlen(text)})
    PART("praxis-init: ");
    PART(what);
    if (name != NULL) {
        PART(" '");
        PART(name);
        PART("'");
    }
    if (error != 0) {
        PART(": ");
        PART(strerror(error));
    }
    PART("\n");
#undef PART
    /* One call, so that the tool's own output does not tear the line. If it fails, there is nobody left to tell. */
    (void)!writev(STDERR_FILENO, parts, count);
}

int fail_setup(const char *what, const char *name, int error)
{
    complain(what, name, error);
    return EXIT_SETUP;
}

int refuse_usage(const char *what, const char *name)
{
    complain(what, name, 0);
    return fail_setup("'praxis-init --help' shows the usage", NULL, 0);
}
