#include "execute.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char default_path[] = "/usr/local/bin:/bin:/usr/bin"; /* musl's, where there is no PATH */

void execute(char *const words[])
{
    const char *name = words[0];
    if (*name == '\0' || strchr(name, '/') != NULL) {
        execve(name, words, environ);
        return;
    }
    const char *path = getenv("PATH");
    if (path == NULL)
        path = default_path;
    int error = ENOENT;
    char file[PATH_MAX];
    for (size_t length;; path += length + 1) {
        length = strcspn(path, ":");
        if (length + strlen(name) + 2 <= sizeof file) {
            memcpy(file, path, length);
            file[length] = '/';
            strcpy(file + length + (length != 0), name); /* an empty entry is the working directory */
            execve(file, words, environ);
            if (errno == EACCES && access(file, F_OK) == 0)
                error = EACCES;
            else if (errno != EACCES && errno != ENOENT && errno != ENOTDIR)
                return;
        }
        if (path[length] == '\0')
            break;
    }
    errno = error;
}
