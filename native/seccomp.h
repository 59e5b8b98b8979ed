/* Filters of system calls, by seccomp: it needs no privilege, and cannot be taken off again. */
#ifndef SECCOMP_H
#define SECCOMP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sock_filter;

struct filter {
    struct sock_filter *instructions; /* NULL: none */
    unsigned short count;
};

/* Take in a filter that our caller has made (linux/filter.h), from bytes or from hexadecimal digits; NULL, or why it is
 * refused. The kernel judges what it says. */
const char *filter_take(struct filter *filter, const uint8_t *bytes, size_t length);
const char *filter_parse(struct filter *filter, const char *digits);

/* All of these hold for this process and all that it starts. They return NULL, or the name of the step that failed,
 * with errno set. A filter implies no new privileges: the kernel demands it of all but root, since a set-user-id
 * program must not run filtered. */
const char *forbid_new_privileges(void);
const char *install_filter(const struct filter *filter); /* nothing where there is none */
const char *refuse_sockets(void); /* but those of AF_UNIX */
const char *refuse_signals_to(pid_t init); /* and whatever else ends or governs a process by its number */

#endif
