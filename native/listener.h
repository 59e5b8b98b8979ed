/* A channel that comes to us over TCP: one connection, and where a secret is asked for, only one that begins with it. */
#ifndef LISTENER_H
#define LISTENER_H

#include "digest.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct listener {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address; /* of family AF_UNSPEC: there is none */
    bool has_digest;
    uint8_t digest[DIGEST_BYTES]; /* of the secret that a connection begins with */
};

/* What options take: ADDRESS:PORT, of IPv4, [IPv4] or [IPv6], and a digest in hexadecimal. `where` is a struct listener. */
bool take_address(void *where, char **values);
bool take_digest(void *where, char **values);

/* Whether only this machine (in a pod: only the pod) reaches the address. */
bool is_loopback(const struct listener *listener);

enum arrival {
    ARRIVAL_NONE,   /* nobody came in time, or a signal asks us to leave */
    ARRIVAL_FAILED, /* it could not be listened there, which has been said */
    ARRIVAL_TAKEN,
};

/* Listens, takes one connection, and refuses all others. `due`: a moment of now(), or NO_DEADLINE; `patience`:
 * nanoseconds within which it has to come. */
enum arrival take_connection(const struct listener *listener, int64_t due, int64_t patience, int *channel);

#endif
