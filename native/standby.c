/* They come with one frame, of the numbers that they are to have. A number may be taken by another of them, or by one of
 * ours, until that has been moved.
 */
#include "standby.h"

#include "frames.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_DESCRIPTORS = 64, NUMBER = 4 };

static struct {
    struct frame_reader reader;
    int held[MOST_DESCRIPTORS];
    size_t count;
} given;

static bool receive_some(void)
{
    union {
        char bytes[CMSG_SPACE(sizeof given.held)];
        struct cmsghdr aligned;
    } control;
    uint8_t *where;
    size_t room = frame_reader_room(&given.reader, &where);
    struct iovec piece = {where, room};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    ssize_t count = recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
    if (count <= 0 || (message.msg_flags & MSG_CTRUNC) != 0)
        return false;
    frame_reader_took(&given.reader, (size_t)count);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL)
        return true;
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS || given.count != 0)
        return false;
    given.count = (header->cmsg_len - CMSG_LEN(0)) / sizeof given.held[0];
    memcpy(given.held, CMSG_DATA(header), given.count * sizeof given.held[0]);
    return true;
}

static bool move_away(int *descriptor, int number)
{
    if (*descriptor == number)
        *descriptor = fcntl(number, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return *descriptor >= 0;
}

/* Gives the descriptor of that index its number. */
static bool place(size_t index, int number, int *const ours[])
{
    int held = given.held[index];
    if (held == number)
        return true;
    for (; *ours != NULL; ours++)
        if (!move_away(*ours, number))
            return false;
    for (size_t other = index + 1; other < given.count; other++)
        if (!move_away(&given.held[other], number))
            return false;
    return dup2(held, number) >= 0 && close(held) == 0;
}

bool receive_descriptors(int first[2], int *const ours[])
{
    struct frame frame;
    const char *refusal = NULL;
    while (!frame_reader_next(&given.reader, &frame, &refusal))
        if (refusal != NULL || !receive_some())
            return false;
    if (frame.type != FRAME_DESCRIPTORS || given.count < 2 || frame.length != given.count * NUMBER)
        return false;
    if (dup2(STDERR_FILENO, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return false;
    for (size_t index = 0; index < given.count; index++) {
        uint32_t number = get_u32(frame.payload + index * NUMBER);
        if (number > INT_MAX || !place(index, (int)number, ours))
            return false;
        if (index < 2)
            first[index] = (int)number;
    }
    return true;
}
