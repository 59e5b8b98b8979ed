/* The command writes into pipes, as it would without us: into a file of its own it could not write twice (a script's
 * `> /dev/stderr` would empty it). What comes goes to a file, whole, and its beginning to our own streams, for a
 * listener there while the command runs; one that is slow gets no more, and holds nothing up.
 */
#include "capture.h"

#include "events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

enum {
    PIECE = 256 * 1024,
    SHOWN_AT_MOST = 256 * 1024, /* bytes of each stream */
};

const char *capture_open(struct capture *capture, const char *const paths[2], int streams[3])
{
    *capture = (struct capture){.pipes = {-1, -1}, .files = {-1, -1}, .shown_on = {STDOUT_FILENO, STDERR_FILENO}};
    capture->signals = open_signals();
    if (capture->signals < 0)
        return "signalfd";
    streams[0] = STDIN_FILENO;
    for (int index = 0; index < 2; index++) {
        int pipe[2];
        capture->files[index] = open(paths[index], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
        if (capture->files[index] < 0)
            return "output";
        if (pipe2(pipe, O_CLOEXEC) != 0 || !set_nonblocking(pipe[0]))
            return "pipe";
        fcntl(pipe[0], F_SETPIPE_SZ, PIECE); /* fewer and larger pieces, where the kernel allows it */
        capture->pipes[index] = pipe[0];
        streams[index + 1] = pipe[1];
    }
    return NULL;
}

void capture_started(struct capture *capture, const int streams[3])
{
    for (int index = 0; index < 2; index++) {
        close(streams[index + 1]);
        /* A description that others share, but who shares it with us is the one that listens. */
        if (!set_nonblocking(capture->shown_on[index]))
            capture->shown_on[index] = -1;
    }
}

static void show(struct capture *capture, int index, const char *data, size_t size)
{
    if (capture->shown_on[index] < 0)
        return;
    size_t left = SHOWN_AT_MOST - capture->shown[index];
    size_t wanted = size < left ? size : left;
    ssize_t count = write(capture->shown_on[index], data, wanted);
    if (count > 0)
        capture->shown[index] += (size_t)count;
    if (count < (ssize_t)size) /* it would have a gap */
        capture->shown_on[index] = -1;
}

static void keep(struct capture *capture, int index, const char *data, size_t size)
{
    while (size > 0 && capture->error == 0) {
        ssize_t count = write(capture->files[index], data, size);
        if (count < 0) {
            capture->error = errno; /* what comes is still taken, so that the command ends */
            return;
        }
        data += count;
        size -= (size_t)count;
    }
}

/* True when something came. */
static bool move(struct capture *capture, int index)
{
    static char piece[PIECE];
    if (capture->pipes[index] < 0)
        return false;
    ssize_t count = read(capture->pipes[index], piece, sizeof piece);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0) {
        close(capture->pipes[index]);
        capture->pipes[index] = -1;
        return false;
    }
    show(capture, index, piece, (size_t)count);
    keep(capture, index, piece, (size_t)count);
    return true;
}

int capture_wait(struct capture *capture, int64_t due)
{
    struct pollfd polled[3] = {
        {.fd = capture->signals, .events = POLLIN},
        {.fd = capture->pipes[0], .events = POLLIN},
        {.fd = capture->pipes[1], .events = POLLIN},
    };
    if (poll_until(polled, 3, due) <= 0)
        return 0;
    for (int index = 0; index < 2; index++)
        if (polled[index + 1].revents != 0)
            move(capture, index);
    return polled[0].revents != 0 ? read_signal(capture->signals) : 0;
}

void capture_rest(struct capture *capture)
{
    for (int index = 0; index < 2; index++)
        while (move(capture, index))
            ;
}
