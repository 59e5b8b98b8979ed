/* The join form: enters control groups, and becomes the command. */
#include "praxis_init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Whoever writes 0 moves itself ("cgroup-v1": of version 1 only the calling thread, which is all there is here). */
static bool enter(const char *file)
{
    int group = open(file, O_WRONLY | O_CLOEXEC);
    if (group < 0)
        return false;
    bool good = write(group, "0", 1) == 1;
    int error = errno;
    close(group);
    errno = error;
    return good;
}

int join_groups(char **files, char **command)
{
    for (; files != command - 1; files++) {
        if (!enter(*files)) {
            complain("the control group cannot be entered", *files, errno);
            return EXIT_SETUP;
        }
    }
    execvp(command[0], command);
    complain("cannot execute", command[0], errno);
    return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}
