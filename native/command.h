/* A command: what must hold before it may start, its start, and what became of it. */
#ifndef COMMAND_H
#define COMMAND_H

#include "outcome.h"
#include "seccomp.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct command {
    char **words;        /* argv, NULL at its end */
    char **environment;  /* NULL: ours */
    const int *streams;  /* three descriptors, for its own three; NULL: ours */
    bool no_network;
    bool no_new_privileges;
    struct filter filter;
    bool has_host_network; /* in a sandbox, which hides all other sockets of the machine */
    bool shields_us;     /* from the command */
    bool tells_failure;  /* on its stderr, when it cannot be executed */
    bool shares_session; /* ours is that of who started us: the command may stay in it, where it has no terminal */
};

struct started {
    pid_t pid;
    int failure; /* a pipe that tells whether there was an exec at all */
};

/* First of all: every signal is blocked, and the numbers of the three streams are taken. Gives the mask that the
 * command is to have. */
void take_charge(sigset_t *inherited);

/* These three return NULL, or the name of the step that failed, with errno set. */
const char *keep_the_tree(void); /* whatever the command starts stays below us, and cannot look into us */
const char *put_filter(const struct filter *filter); /* over us and the command, which makes no cores then */
const char *start_command(const struct command *command, const sigset_t *mask, struct started *started);

/* To be asked when the whole tree is gone. */
struct outcome outcome_of_command(const struct started *started, const struct ending *ending);

#endif
