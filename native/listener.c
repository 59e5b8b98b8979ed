/* Who reaches a pod's network may connect, and must neither learn anything nor keep the place from its caller. So a
 * connection that has not given the secret is closed without a word: when it gave another, when it takes long, or when
 * others come and it is the oldest of those that wait.
 */
#include "listener.h"

#include "diagnostics.h"
#include "events.h"
#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* For the secret, which comes with the connection. */
static const int64_t SECRET_TIME = 5 * NANOSECONDS_PER_SECOND;
/* Between two attempts to take a connection for which there is no descriptor: it stays where it is, and poll() would
 * return at once, again and again. */
static const int64_t ACCEPT_AGAIN = NANOSECONDS_PER_SECOND / 20;
enum {
    MOST_UNPROVEN = 64,
    MOST_AT_ONCE = 16,
    BACKLOG = 128, /* connections that the kernel holds; beyond, a caller's would be tried again after a second */
};

struct unproven {
    int channel; /* -1: none */
    int64_t due;
    size_t count;
    uint8_t secret[SECRET_BYTES];
};

bool take_address(void *where, char **values)
{
    struct listener *listener = where;
    char address[INET6_ADDRSTRLEN];
    const char *colon = strrchr(values[0], ':'), *begin = values[0], *end = colon;
    unsigned long long port;
    if (colon == NULL || !is_number(colon + 1, UINT16_MAX, &port) || port == 0)
        return false;
    bool has_brackets = *begin == '[' && end[-1] == ']';
    if (has_brackets) {
        begin++;
        end--;
    }
    if (end <= begin || (size_t)(end - begin) >= sizeof address)
        return false;
    bool is_six = memchr(begin, ':', (size_t)(end - begin)) != NULL;
    if (is_six && !has_brackets)
        return false;
    memcpy(address, begin, (size_t)(end - begin));
    address[end - begin] = '\0';
    listener->address.any.sa_family = is_six ? AF_INET6 : AF_INET;
    if (is_six)
        listener->address.six.sin6_port = htons((uint16_t)port);
    else
        listener->address.four.sin_port = htons((uint16_t)port);
    return is_six ? inet_pton(AF_INET6, address, &listener->address.six.sin6_addr) == 1
                  : inet_pton(AF_INET, address, &listener->address.four.sin_addr) == 1;
}

static int digit_of(char character)
{
    return character >= '0' && character <= '9'   ? character - '0'
           : character >= 'a' && character <= 'f' ? character - 'a' + 10
                                                  : -1;
}

bool take_digest(void *where, char **values)
{
    struct listener *listener = where;
    const char *text = values[0];
    if (strlen(text) != 2 * DIGEST_BYTES)
        return false;
    for (int index = 0; index < DIGEST_BYTES; index++) {
        int high = digit_of(text[2 * index]), low = digit_of(text[2 * index + 1]);
        if (high < 0 || low < 0)
            return false;
        listener->digest[index] = (uint8_t)(high << 4 | low);
    }
    listener->has_digest = true;
    return true;
}

bool is_loopback(const struct listener *listener)
{
    if (listener->address.any.sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&listener->address.six.sin6_addr);
    return ntohl(listener->address.four.sin_addr.s_addr) >> 24 == 127;
}

static int open_listener(const struct listener *listener)
{
    int yes = 1, family = listener->address.any.sa_family;
    int found = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t length = family == AF_INET6 ? sizeof listener->address.six : sizeof listener->address.four;
    if (found < 0 || setsockopt(found, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(found, &listener->address.any, length) != 0 || listen(found, BACKLOG) != 0)
        return -1;
    return found;
}

static void dismiss(struct unproven *one)
{
    if (one->channel >= 0)
        close(one->channel);
    one->channel = -1;
}

/* A place among those that wait: a free one, else the oldest's. */
static struct unproven *make_room(struct unproven unproven[MOST_UNPROVEN])
{
    struct unproven *found = unproven;
    for (int index = 0; index < MOST_UNPROVEN && found->channel >= 0; index++)
        if (unproven[index].channel < 0 || unproven[index].due < found->due)
            found = &unproven[index];
    dismiss(found);
    return found;
}

/* Takes what has come of the secret, and no byte more: frames follow. Whether it is complete, and right; in a time that
 * does not depend on the bytes. */
static bool look_at(struct unproven *one, const uint8_t wanted[DIGEST_BYTES])
{
    ssize_t count = read(one->channel, one->secret + one->count, SECRET_BYTES - one->count);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0) {
        dismiss(one);
        return false;
    }
    one->count += (size_t)count;
    if (one->count < SECRET_BYTES)
        return false;
    uint8_t digest[DIGEST_BYTES];
    volatile uint8_t difference = 0;
    digest_secret(one->secret, digest);
    for (int index = 0; index < DIGEST_BYTES; index++)
        difference |= digest[index] ^ wanted[index];
    if (difference != 0)
        dismiss(one);
    return difference == 0;
}

/* A caller whose machine is gone says nothing: the kernel asks for it. Frames are small, and none waits for another. */
static void keep_alive(int channel)
{
    const int yes = 1, idle = 15, interval = 5, count = 3;
    setsockopt(channel, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(channel, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(channel, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(channel, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(channel, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

/* Whether a signal asks us to leave. */
static bool is_asked_to_leave(int signals)
{
    int sig = read_signal(signals);
    if (sig == SIGCHLD) /* as PID 1 we inherit what others leave */
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    return sig == SIGTERM || sig == SIGINT || sig == SIGHUP || sig == SIGQUIT;
}

static int64_t earlier(int64_t one, int64_t other)
{
    return one == NO_DEADLINE || (other != NO_DEADLINE && other < one) ? other : one;
}

/* The next moment at which something is due, `due` or before. */
static int64_t first_due(const struct unproven unproven[MOST_UNPROVEN], int64_t due)
{
    for (int index = 0; index < MOST_UNPROVEN; index++)
        if (unproven[index].channel >= 0)
            due = earlier(due, unproven[index].due);
    return due;
}

/* Until one gives the secret, which is `*taken` then; where none is asked for, the first. However many gave a wrong one:
 * nobody guesses it, and a bound would let strangers end us. */
static enum arrival wait_for_proof(const struct listener *listener, int door, int signals, int64_t due,
                                   struct unproven unproven[MOST_UNPROVEN], struct unproven **taken)
{
    enum { SIGNALS, DOOR, FIRST, COUNT = FIRST + MOST_UNPROVEN };
    int64_t again = NO_DEADLINE; /* when the door is looked at again that could not be opened */
    for (;;) {
        if (due != NO_DEADLINE && now() >= due)
            return ARRIVAL_NONE;
        if (again != NO_DEADLINE && now() >= again)
            again = NO_DEADLINE;
        int open = again == NO_DEADLINE ? door : -1; /* poll() passes over -1 */
        struct pollfd polled[COUNT] = {{.fd = signals, .events = POLLIN}, {.fd = open, .events = POLLIN}};
        nfds_t used = FIRST; /* poll() refuses more than there may be descriptors */
        for (int index = 0; index < MOST_UNPROVEN; index++) {
            polled[FIRST + index] = (struct pollfd){.fd = unproven[index].channel, .events = POLLIN};
            if (unproven[index].channel >= 0)
                used = FIRST + (nfds_t)index + 1;
        }
        poll_until(polled, used, first_due(unproven, earlier(due, again)));
        if (polled[SIGNALS].revents != 0 && is_asked_to_leave(signals))
            return ARRIVAL_NONE;
        for (int index = 0; index < MOST_UNPROVEN; index++) {
            struct unproven *one = &unproven[index];
            if (polled[FIRST + index].revents != 0 && look_at(one, listener->digest)) {
                *taken = one;
                return ARRIVAL_TAKEN;
            }
            if (one->channel >= 0 && now() >= one->due)
                dismiss(one);
        }
        /* Several at a time, or strangers who connect all the time would fill the kernel's queue; each is looked at
         * before the next, or they would put the caller out. */
        for (int count = 0; polled[DOOR].revents != 0 && count < MOST_AT_ONCE; count++) {
            int channel = accept4(door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (channel < 0) {
                if (errno != EAGAIN && errno != EINTR)
                    again = now() + ACCEPT_AGAIN;
                break;
            }
            struct unproven *one = *taken = make_room(unproven);
            *one = (struct unproven){.channel = channel, .due = now() + SECRET_TIME};
            if (!listener->has_digest || look_at(one, listener->digest))
                return ARRIVAL_TAKEN;
        }
    }
}

enum arrival take_connection(const struct listener *listener, int64_t due, int64_t patience, int *channel)
{
    int door = open_listener(listener), signals = open_signals();
    if (door < 0 || signals < 0) {
        complain("cannot listen", NULL, errno);
        return ARRIVAL_FAILED;
    }
    struct unproven unproven[MOST_UNPROVEN];
    for (int index = 0; index < MOST_UNPROVEN; index++)
        unproven[index].channel = -1;
    struct unproven *taken;
    due = earlier(due, now() + patience);
    enum arrival arrival = wait_for_proof(listener, door, signals, due, unproven, &taken);
    if (arrival == ARRIVAL_TAKEN) {
        *channel = taken->channel;
        taken->channel = -1;
        keep_alive(*channel);
    }
    for (int index = 0; index < MOST_UNPROVEN; index++)
        dismiss(&unproven[index]);
    close(door); /* from now on connections are refused */
    close(signals);
    return arrival;
}
