/* praxis-init: the small static program that praxis-mcp puts in front of a tool's command.
 *
 * praxis_init.c  the command line; one entry per form
 * run.c          the run form: a command of its own words, and a report
 * wait.c         the wait form: a command that comes over a channel, and its output back
 * join.c         the join form: into control groups and a mount namespace, and then only the command
 * command.c      the start of a command, and what became of it
 * frames.c       the bytes of a frame on the channel
 * call.c         the call that the frames make
 * relay.c        the channel and the command's streams
 * supervise.c    a started command: its signals, its deadline, the end of all it started
 * tree.c         a signal to every descendant, however it hid
 * confine.c      no-new-privileges, the network filter, the caller's filter, Landlock
 */
#ifndef PRAXIS_INIT_H
#define PRAXIS_INIT_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Exit statuses that are not the command's own: those of timeout(1) and of the shell. */
enum {
    EXIT_TIMED_OUT = 124,  /* the deadline passed */
    EXIT_SETUP = 125,      /* praxis-init itself failed; the command did not run */
    EXIT_CANNOT_RUN = 126, /* the command was found but could not be executed */
    EXIT_NOT_FOUND = 127,
    EXIT_SIGNAL_BASE = 128, /* 128 + N: the command died of signal N */
    EXIT_SIGNAL_LAST = 191,
};

#define NANOSECONDS_PER_SECOND INT64_C(1000000000)
#define NO_DEADLINE INT64_C(-1)

struct sock_filter;

/* A seccomp filter of system calls, made by our caller (linux/filter.h). */
struct filter {
    struct sock_filter *instructions; /* NULL: none */
    unsigned short count;
};

/* Take a filter in, from bytes or from hexadecimal digits; NULL, or why it is refused. The kernel judges what it says. */
const char *filter_take(struct filter *filter, const uint8_t *bytes, size_t length);
const char *filter_parse(struct filter *filter, const char *digits);

struct run_options {
    int64_t timeout;    /* nanoseconds, or NO_DEADLINE */
    int64_t kill_after; /* nanoseconds between the polite signal and SIGKILL; 0: SIGKILL at once */
    bool no_network;
    bool no_new_privileges;
    struct filter filter;
    pid_t parent;       /* end with this process, our parent; 0: do not */
    bool plain_status;  /* 128 to 191 become EXIT_SETUP: Dagger takes them for a failure of the exec itself */
    const char *report; /* a path, or a descriptor number from 3 up; NULL: no report */
    const char *stdout_file, *stderr_file; /* keep the output there; NULL: the command has our streams */
    char **command;     /* argv, NULL at its end */
};

/* Runs the command to its end and returns the status to exit with. */
int run_command(const struct run_options *options);

struct wait_options {
    const char *socket; /* path of a unix socket; NULL: the channel is stdin and stdout */
    int64_t patience;   /* nanoseconds that the call may take to come, or NO_DEADLINE */
    const char *boot;   /* the id of the kernel's boot that `sources` are of; NULL: there are none */
    char **sources;     /* arguments, three for each: "--source", "DEVICE:INODE", the path that it must be at */
};

/* Waits for a call on the channel and sees it to its end; returns the status to exit with. */
int wait_for_call(const struct wait_options *options);

struct join_options {
    bool private_mounts;    /* a mount namespace of its own, which no mount to come propagates to */
    const char *overlay;    /* the directory of an image whose root gets a layer to write to; NULL: none */
    const char *layer_size; /* bytes, in digits */
    const char *group;      /* the directory of a control group of version 2; NULL: none */
    char **files;           /* tasks of groups of version 1, up to the "--" before the command */
    char **command;         /* argv, NULL at its end */
};

/* Becomes the command, in groups and namespaces, or runs it as a child where a group of version 2 asks for one; returns
 * the status to exit with. */
int join(const struct join_options *options);

enum { STEP_LENGTH = 24 };

struct command {
    char **words;        /* argv, NULL at its end */
    char **environment;  /* NULL: ours */
    const char *directory; /* NULL: ours */
    const int *streams;  /* three descriptors, for its own three; NULL: ours */
    bool no_network;
    bool no_new_privileges;
    struct filter filter;
    bool shields_us;     /* from the command */
    bool tells_failure;  /* on its stderr, when it cannot be executed */
};

struct started {
    pid_t pid;
    int failure; /* a pipe that tells whether there was an exec at all */
};

struct ending {
    bool command_ended; /* false only if it could not even be killed */
    int status;         /* the command's, as wait gave it */
    bool timed_out;
};

/* How a command ended, or why it did not begin; the numbers are those of END frames. */
enum outcome_kind {
    OUTCOME_EXIT = 0,   /* number: its exit code */
    OUTCOME_SIGNAL = 1, /* number: the signal */
    OUTCOME_TIMEOUT = 2,
    OUTCOME_EXEC_FAILED = 3,  /* number: an errno */
    OUTCOME_SETUP_FAILED = 4, /* number: an errno; step: what failed */
};

struct outcome {
    enum outcome_kind kind;
    int number;
    char step[STEP_LENGTH];
};

/* First of all: every signal is blocked, and the numbers of the three streams are taken. Gives the mask that the command
 * is to have. */
void take_charge(sigset_t *inherited);

/* These two return NULL, or the name of the step that failed, with errno set. */
const char *keep_the_tree(void); /* whatever the command starts stays below us, and cannot look into us */
const char *start_command(const struct command *command, const sigset_t *mask, struct started *started);
struct outcome failed_setup(const char *step, int error);

/* To be asked when the whole tree is gone. */
struct outcome outcome_of(const struct started *started, const struct ending *ending);

/* Monotonic nanoseconds. */
int64_t now(void);

/* As poll(), until a moment of now(), or NO_DEADLINE. */
int poll_until(struct pollfd *polled, nfds_t count, int64_t due);

struct relay;
struct capture;

/* Returns when the command and all its descendants are gone. All signals must be blocked. `deadline` is a moment of
 * now(), or NO_DEADLINE. A relay or a capture is kept moving meanwhile; when a relay's channel ends, so does the tree. */
struct ending supervise(pid_t command, int64_t deadline, int64_t kill_after, struct relay *relay,
                        struct capture *capture);

/* Sends sig to every descendant of this process, except itself. `command` is the session that the command leads:
 * all that can be reached where /proc is absent and we are not PID 1. */
void signal_tree(int sig, pid_t command);

/* All return NULL, or the name of the step that failed, with errno set. */
const char *forbid_new_privileges(void);
const char *refuse_network(void);       /* for this process and all it starts; implies no new privileges */
const char *refuse_calls(const struct filter *filter); /* likewise; nothing where there is none */
/* These two for the command only, before its exec; see confine.c. */
const char *seal_off_from_others(void);
const char *shield(pid_t init); /* the command, in our pid namespace, cannot end us */

/* One line on stderr: "praxis-init: WHAT[ 'NAME'][: strerror(error)]". */
void complain(const char *what, const char *name, int error);

#endif
