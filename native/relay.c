/* One poll() over the channel, the command's streams and the signals.
 *
 * The channel is always read: so its end is noticed whatever the command does, and no direction can block another.
 * Standard input therefore comes on credit, and waits here, no more than a window of it. Output is read from the
 * command only when the last piece has gone out, and at its end.
 */
#include "relay.h"

#include "events.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Of output that nobody takes, or of a caller that does not hang up, once the command has ended. */
static const int64_t GIVE_UP_AFTER = 60 * NANOSECONDS_PER_SECOND;

/* What a command writes right after its start goes out with its end, where that comes as soon: each piece on its own has
 * the caller take a turn, which keeps a processor from the command. */
static const int64_t QUIET = NANOSECONDS_PER_SECOND / 500;

const char *relay_open(struct relay *relay, int in, int out)
{
    relay->in = in;
    relay->out = out;
    relay->tool_stdin = relay->tool_output[0] = relay->tool_output[1] = -1;
    relay->window = STDIN_WINDOW;
    call_init(&relay->call);
    relay->signals = open_signals();
    if (relay->signals < 0)
        return "signalfd";
    if (fcntl(in, F_SETFD, FD_CLOEXEC) != 0 || fcntl(out, F_SETFD, FD_CLOEXEC) != 0)
        return "channel";
    return set_nonblocking(in) && set_nonblocking(out) ? NULL : "channel";
}

const char *relay_make_pipes(struct relay *relay, int streams[3])
{
    int pipes[3][2];
    for (int index = 0; index < 3; index++)
        if (pipe2(pipes[index], O_CLOEXEC) != 0)
            return "pipe";
    streams[0] = pipes[0][0];
    streams[1] = pipes[1][1];
    streams[2] = pipes[2][1];
    relay->tool_stdin = pipes[0][1];
    relay->tool_output[0] = pipes[1][0];
    relay->tool_output[1] = pipes[2][0];
    /* Ours only: the command's ends are descriptions of their own, and stay as commands expect them. */
    bool good = set_nonblocking(relay->tool_stdin) && set_nonblocking(relay->tool_output[0]) &&
                set_nonblocking(relay->tool_output[1]);
    return good ? NULL : "pipe";
}

bool relay_is_over(const struct relay *relay)
{
    return relay->lost || relay->refusal != NULL;
}

static void drop(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
    *descriptor = -1;
}

static void lose(struct relay *relay)
{
    relay->lost = true;
    relay->out_begin = relay->out_end = 0;
    drop(&relay->tool_stdin);
    drop(&relay->tool_output[0]);
    drop(&relay->tool_output[1]);
}

static void stop_feeding(struct relay *relay, bool tell)
{
    drop(&relay->tool_stdin);
    relay->stdin_begin = relay->stdin_end = 0;
    if (tell && !relay->stdin_closed)
        relay->stdin_closed = relay->closed_due = true;
}

/* The command's pipe gets what it takes. */
static void feed(struct relay *relay)
{
    while (relay->tool_stdin >= 0 && relay->stdin_begin < relay->stdin_end) {
        size_t left = relay->stdin_end - relay->stdin_begin;
        ssize_t count = write(relay->tool_stdin, relay->stdin_held + relay->stdin_begin, left);
        if (count < 0 && errno == EAGAIN)
            return;
        if (count < 0) {
            stop_feeding(relay, true);
            return;
        }
        relay->stdin_begin += (size_t)count;
        relay->window += (size_t)count;
        relay->credit_due += (uint32_t)count;
    }
    if (relay->stdin_ends)
        drop(&relay->tool_stdin);
}

void relay_started(struct relay *relay, const int streams[3])
{
    for (int index = 0; index < 3; index++)
        close(streams[index]);
    relay->quiet = now() + QUIET;
    feed(relay);
}

static const char *hold_stdin(struct relay *relay, const struct frame *frame)
{
    if (relay->stdin_ends)
        return "standard input after its end";
    if (frame->length > relay->window)
        return "more standard input than there was credit for";
    relay->window -= frame->length;
    if (relay->stdin_closed)
        return NULL;
    if (sizeof relay->stdin_held - relay->stdin_end < frame->length) {
        memmove(relay->stdin_held, relay->stdin_held + relay->stdin_begin, relay->stdin_end - relay->stdin_begin);
        relay->stdin_end -= relay->stdin_begin;
        relay->stdin_begin = 0;
    }
    memcpy(relay->stdin_held + relay->stdin_end, frame->payload, frame->length);
    relay->stdin_end += frame->length;
    return NULL;
}

static const char *take_frame(struct relay *relay, const struct frame *frame)
{
    if (!relay->call.complete)
        return call_take(&relay->call, frame);
    if (frame->type == FRAME_STDIN)
        return hold_stdin(relay, frame);
    if (frame->type != FRAME_STDIN_END || frame->length != 0)
        return "a frame other than standard input after START";
    relay->stdin_ends = true;
    return NULL;
}

static void receive(struct relay *relay)
{
    uint8_t *where;
    size_t room = frame_reader_room(&relay->reader, &where);
    ssize_t count = read(relay->in, where, room);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        lose(relay);
        return;
    }
    frame_reader_took(&relay->reader, (size_t)count);
    if (!relay->call.complete)
        relay->heard = now();
    struct frame frame;
    while (relay->refusal == NULL && frame_reader_next(&relay->reader, &frame, &relay->refusal))
        relay->refusal = take_frame(relay, &frame);
    feed(relay);
}

/* Where a frame's payload goes; NULL where there is no room for it. */
static uint8_t *make_room(struct relay *relay, uint32_t length)
{
    if (sizeof relay->out_held - relay->out_end < FRAME_HEADER + (size_t)length) {
        memmove(relay->out_held, relay->out_held + relay->out_begin, relay->out_end - relay->out_begin);
        relay->out_end -= relay->out_begin;
        relay->out_begin = 0;
    }
    if (sizeof relay->out_held - relay->out_end < FRAME_HEADER + (size_t)length)
        return NULL;
    return relay->out_held + relay->out_end + FRAME_HEADER;
}

void relay_put(struct relay *relay, enum frame_type type, uint32_t length)
{
    put_header(relay->out_held + relay->out_end, type, length);
    relay->out_end += FRAME_HEADER + length;
}

void relay_queue(struct relay *relay, enum frame_type type, const uint8_t *payload, uint32_t length)
{
    uint8_t *where = make_room(relay, length);
    if (where == NULL)
        return;
    if (length != 0)
        memcpy(where, payload, length);
    relay_put(relay, type, length);
}

static bool is_queue_empty(const struct relay *relay)
{
    return relay->out_begin == relay->out_end;
}

/* What is due besides output. Behind output there is room for it, and it must not wait for output to be taken: a
 * command may write nothing until it has read all. */
static void queue_due(struct relay *relay)
{
    if (relay->lost || relay->out_end - relay->out_begin > FRAME_HEADER + OUTPUT_PAYLOAD)
        return;
    if (relay->credit_due >= CREDIT_STEP) {
        uint8_t credit[4];
        put_u32(credit, relay->credit_due);
        relay_queue(relay, FRAME_STDIN_CREDIT, credit, sizeof credit);
        relay->credit_due = 0;
    }
    if (relay->closed_due)
        relay_queue(relay, FRAME_STDIN_CLOSED, NULL, 0);
    relay->closed_due = false;
}

/* Output of the command into the queue, behind what is there; false when there is none just now, or no room. */
static bool take_output(struct relay *relay, int index)
{
    int *from = &relay->tool_output[index];
    if (*from < 0)
        return false;
    if (is_queue_empty(relay))
        relay->out_begin = relay->out_end = 0;
    if (relay->out_end + FRAME_HEADER >= OUT_FOR_OUTPUT)
        return false;
    size_t place = relay->out_end + FRAME_HEADER;
    ssize_t count = read(*from, relay->out_held + place, OUT_FOR_OUTPUT - place);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0) {
        drop(from);
        return false;
    }
    relay_put(relay, index == 0 ? FRAME_STDOUT : FRAME_STDERR, (uint32_t)count);
    relay->next_output = 1 - index;
    return true;
}

static bool take_any_output(struct relay *relay)
{
    int first = relay->next_output;
    return take_output(relay, first) || take_output(relay, 1 - first);
}

static void send_queue(struct relay *relay)
{
    while (!is_queue_empty(relay)) {
        ssize_t count = write(relay->out, relay->out_held + relay->out_begin, relay->out_end - relay->out_begin);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count < 0) {
            lose(relay);
            return;
        }
        relay->out_begin += (size_t)count;
    }
}

static bool is_quiet(struct relay *relay)
{
    if (relay->quiet != 0 && now() >= relay->quiet)
        relay->quiet = 0;
    return relay->quiet != 0;
}

int relay_wait(struct relay *relay, int64_t due)
{
    enum { SIGNALS, IN, OUT, TOOL_STDIN, TOOL_STDOUT, TOOL_STDERR, COUNT };
    queue_due(relay);
    bool is_empty = is_queue_empty(relay), feeds = relay->stdin_begin < relay->stdin_end;
    bool takes = !is_quiet(relay) && is_empty; /* in this order: what has passed is nothing to wait for */
    if (relay->quiet != 0 && (due == NO_DEADLINE || relay->quiet < due))
        due = relay->quiet;
    /* A descriptor of -1 is left out. Output that is not wanted must be: its end would be reported again and again. */
    struct pollfd polled[COUNT] = {
        [SIGNALS] = {.fd = relay->signals, .events = POLLIN},
        [IN] = {.fd = relay_is_over(relay) ? -1 : relay->in, .events = POLLIN},
        [OUT] = {.fd = relay->lost ? -1 : relay->out, .events = is_empty ? 0 : POLLOUT},
        [TOOL_STDIN] = {.fd = relay->tool_stdin, .events = feeds ? POLLOUT : 0},
        [TOOL_STDOUT] = {.fd = takes ? relay->tool_output[0] : -1, .events = POLLIN},
        [TOOL_STDERR] = {.fd = takes ? relay->tool_output[1] : -1, .events = POLLIN},
    };
    if (poll_until(polled, COUNT, due) <= 0)
        return 0;
    if (polled[IN].revents != 0)
        receive(relay);
    if (polled[OUT].revents & (POLLERR | POLLHUP | POLLNVAL))
        lose(relay);
    if (polled[TOOL_STDIN].revents & POLLERR)
        stop_feeding(relay, true);
    else if (polled[TOOL_STDIN].revents != 0)
        feed(relay);
    if (is_queue_empty(relay) && (polled[TOOL_STDOUT].revents != 0 || polled[TOOL_STDERR].revents != 0))
        take_any_output(relay);
    if (!relay->lost)
        send_queue(relay);
    return polled[SIGNALS].revents != 0 ? read_signal(relay->signals) : 0;
}

uint8_t *relay_reserve(struct relay *relay, uint32_t length)
{
    int64_t give_up = NO_DEADLINE; /* the usual frame has room, and needs no clock */
    uint8_t *where;
    while (!relay_is_over(relay) && (where = make_room(relay, length)) == NULL) {
        if (give_up == NO_DEADLINE)
            give_up = now() + GIVE_UP_AFTER;
        size_t before = relay->out_end - relay->out_begin;
        int sig = relay_wait(relay, give_up);
        if (relay->out_end - relay->out_begin < before)
            give_up = NO_DEADLINE;
        else if (now() >= give_up)
            lose(relay);
        if (sig == SIGTERM || sig == SIGINT || sig == SIGHUP || sig == SIGQUIT)
            lose(relay);
    }
    return relay_is_over(relay) ? NULL : where;
}

bool relay_gather(struct relay *relay)
{
    while (take_any_output(relay))
        ;
    return relay->tool_output[0] < 0 && relay->tool_output[1] < 0;
}

void relay_flush(struct relay *relay)
{
    int64_t give_up = now() + GIVE_UP_AFTER;
    while (!relay->lost && (!is_queue_empty(relay) || take_any_output(relay))) {
        size_t before = relay->out_end - relay->out_begin;
        send_queue(relay);
        if (is_queue_empty(relay) || relay->out_end - relay->out_begin < before) {
            give_up = now() + GIVE_UP_AFTER;
            continue;
        }
        /* Whatever else comes on the channel has nothing to tell any more, but its end has. */
        int sig = relay_wait(relay, give_up);
        if (now() >= give_up || sig == SIGTERM)
            return;
    }
}

void relay_linger(struct relay *relay)
{
    int64_t give_up = now() + GIVE_UP_AFTER;
    while (!relay_is_over(relay) && now() < give_up)
        if (relay_wait(relay, give_up) == SIGTERM)
            return;
}
