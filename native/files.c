/* The errno of the read or write outlives close(), which may set another. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void close_quietly(int descriptor)
{
    int error = errno;
    close(descriptor);
    errno = error;
}

ssize_t read_text(int folder, const char *name, char *text, size_t size)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    ssize_t length = read(file, text, size - 1);
    close_quietly(file);
    if (length >= 0)
        text[length] = '\0';
    return length;
}

bool write_text(int folder, const char *name, const char *text)
{
    int file = openat(folder, name, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    size_t length = strlen(text);
    bool good = write(file, text, length) == (ssize_t)length;
    close_quietly(file);
    return good;
}
