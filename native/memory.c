/* A libc may map pages for each size of a small piece, and take most of them back: a dozen system calls, and as many pages
 * that are zeroed, for a message of two kilobytes.
 */
#include "memory.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 64 * 1024, ALIGNMENT = alignof(max_align_t) };

static alignas(max_align_t) char room[ROOM];
static size_t used; /* a multiple of ALIGNMENT, as ROOM is */

void *keep(size_t size)
{
    if (size > ROOM - used)
        return malloc(size);
    void *piece = room + used;
    used += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return piece;
}

char *keep_text(const void *bytes, size_t length)
{
    char *text = keep(length + 1);
    if (text != NULL) {
        memcpy(text, bytes, length);
        text[length] = '\0';
    }
    return text;
}
