/* The command line of praxis-init. See praxis_init.h for the other files. */
#include "praxis_init.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static const char usage[] =
    "usage: praxis-init run [options] [--] command [argument...]\n"
    "       praxis-init wait [--socket PATH] [--patience SECONDS] [--boot ID --source DEVICE:INODE PATH...]\n"
    "       praxis-init join [options] FILE... -- command [argument...]\n"
    "       praxis-init --version | --help\n"
    "\n"
    "run: runs the command, reaps every process it leaves, and lets none outlive it.\n"
    "\n"
    "  --timeout SECONDS      end the whole process tree when they have passed (SIGTERM, then SIGKILL)\n"
    "  --kill-after SECONDS   time between SIGTERM and SIGKILL (default 2; 0: SIGKILL at once)\n"
    "  --no-network           no sockets but AF_UNIX, no io_uring, no new privileges\n"
    "  --no-new-privileges    set-user-id programs and file capabilities give nothing\n"
    "  --filter HEX           a seccomp filter for the command and all it starts, as an array of struct sock_filter in\n"
    "                         hexadecimal; no new privileges\n"
    "  --hide NAME,NAME...    no variables whose names begin so; of what is called PRAXIS_KEPT_NAME the command gets\n"
    "                         NAME: for variables that whoever starts us adds of its own\n"
    "  --parent PID           end the tree when the parent process, which must be PID, dies; a command without new\n"
    "                         privileges cannot end praxis-init by a signal, by tracing or by its limits then\n"
    "  --report FD|PATH       write how it ended, as one line, to a descriptor (3 or more) or a file:\n"
    "                         exit N | signal N | timeout | exec-failed ERRNO | setup-failed ERRNO STEP\n"
    "  --stdout FILE, --stderr FILE\n"
    "                         keep what the command writes in these files, both or none; the first 256 KiB of each\n"
    "                         stream also go to our own, as far as somebody takes them at once\n"
    "  --plain-status         exit with 125 instead of 128 to 191, which some callers take for a failure of their\n"
    "                         own; needs --report, which tells what it was\n"
    "\n"
    "Exit status: the command's own; 124 the deadline passed; 125 praxis-init failed; 126 the command could\n"
    "not be executed; 127 it was not found; 128+N it died of signal N. Only the report tells a command that\n"
    "itself exits 124 to 127 from these.\n"
    "\n"
    "wait: says hello and waits for one call, in frames; runs it as `run` does; sends its output and its end\n"
    "back, in frames. Ends with its channel, and all that it started with it.\n"
    "\n"
    "  --socket PATH          the channel is a unix socket to connect to, instead of stdin and stdout\n"
    "  --patience SECONDS     leave quietly if no call has come when they have passed\n"
    "  --hide NAME,NAME...    as for run; the call's own variables stay\n"
    "  --boot ID              what /proc/sys/kernel/random/boot_id says where the numbers of the sources are from;\n"
    "                         under another kernel they mean nothing, and are not looked at\n"
    "  --source DEV:INO PATH  last of all: start nothing unless that file or directory lies at PATH\n"
    "\n"
    "Exit status: 0 the end was told, or no call came; 125 otherwise.\n"
    "\n"
    "join: enters the control groups whose tasks (or cgroup.procs) the files are, and becomes the command.\n"
    "\n"
    "  --group DIR            run it in a control group of version 2, as a child, and end as it does\n"
    "  --private-mounts       in a mount namespace of its own, where later mounts of the system do not appear\n"
    "  --overlay DIR BYTES    in one where DIR/layer/root is DIR/rootfs with a layer in memory, of that size, to\n"
    "                         write to; the working directory becomes DIR\n"
    "\n"
    "Exit status: the command's own; 125 a group could not be entered; 126 and 127 as for run.\n";

static const char version[] = "praxis-init 3\n";

void complain(const char *what, const char *name, int error)
{
    struct iovec parts[8];
    int count = 0;
#define PART(text) (parts[count++] = (struct iovec){(void *)(text), strlen(text)})
    PART("praxis-init: ");
    PART(what);
    if (name != NULL) {
        PART(" '");
        PART(name);
        PART("'");
    }
    if (error != 0) {
        PART(": ");
        PART(strerror(error));
    }
    PART("\n");
#undef PART
    /* One call, so that the line is not torn by the tool's own output. Nobody is left to tell if it fails. */
    (void)!writev(STDERR_FILENO, parts, count);
}

/* Decimal seconds ("2", "0.25") to nanoseconds. By hand: strtod would accept nan, inf and hexadecimal. */
static bool parse_seconds(const char *text, int64_t *nanoseconds)
{
    const int64_t most = INT64_C(1000000000); /* 31 years: far from overflow when added to the clock */
    int64_t whole = 0, fraction = 0, unit = NANOSECONDS_PER_SECOND;
    bool digits = false;
    for (; *text >= '0' && *text <= '9'; text++) {
        digits = true;
        whole = whole * 10 + (*text - '0');
        if (whole > most)
            whole = most;
    }
    if (*text == '.') {
        for (text++; *text >= '0' && *text <= '9'; text++) {
            digits = true;
            unit /= 10;
            fraction += unit * (*text - '0');
        }
    }
    *nanoseconds = whole * NANOSECONDS_PER_SECOND + fraction;
    return digits && *text == '\0';
}

static bool parse_pid(const char *text, pid_t *pid)
{
    int64_t value = 0;
    for (; *text >= '0' && *text <= '9' && value < INT32_MAX; text++)
        value = value * 10 + (*text - '0');
    *pid = (pid_t)value;
    return *text == '\0' && value > 0 && value < INT32_MAX;
}

/* Digits, few enough for any kernel. */
static bool parse_size(const char *text)
{
    return text != NULL && text[0] != '\0' && strlen(text) < 19 && strspn(text, "0123456789") == strlen(text);
}

/* `names` are beginnings of names, with commas between; false where one is empty, which would be all variables. */
static bool hide_variables(const char *names)
{
    static const char kept[] = "PRAXIS_KEPT_";
    if (names == NULL)
        return false;
    for (const char *name = names, *end = names; *end != '\0'; name = end + 1)
        if ((end = name + strcspn(name, ",")) == name)
            return false;
    char **stays = environ;
    for (char **variable = environ; stays != NULL && *variable != NULL; variable++) {
        bool hidden = false;
        for (const char *name = names, *end = names; *end != '\0' && !hidden; name = end + 1) {
            end = name + strcspn(name, ",");
            hidden = strncmp(*variable, name, (size_t)(end - name)) == 0;
        }
        if (!hidden)
            *stays++ = *variable + (strncmp(*variable, kept, sizeof kept - 1) == 0 ? sizeof kept - 1 : 0);
    }
    if (stays != NULL)
        *stays = NULL;
    return names[0] != '\0';
}

static int refuse(const char *what, const char *name)
{
    complain(what, name, 0);
    complain("'praxis-init --help' shows the usage", NULL, 0);
    return EXIT_SETUP;
}

static int run_form(char **arguments)
{
    struct run_options options = {.timeout = NO_DEADLINE, .kill_after = 2 * NANOSECONDS_PER_SECOND};
    char **next = arguments;
    for (; *next != NULL && (*next)[0] == '-'; next++) {
        const char *option = *next;
        if (strcmp(option, "--") == 0) {
            next++;
            break;
        }
        if (strcmp(option, "--no-network") == 0) {
            options.no_network = true;
            continue;
        }
        if (strcmp(option, "--no-new-privileges") == 0) {
            options.no_new_privileges = true;
            continue;
        }
        if (strcmp(option, "--plain-status") == 0) {
            options.plain_status = true;
            continue;
        }
        const char *value = next[1];
        bool good;
        if (strcmp(option, "--timeout") == 0) {
            /* 0 is refused: timeout(1) reads it as "no limit", a deadline that has just passed means the opposite. */
            good = value != NULL && parse_seconds(value, &options.timeout) && options.timeout > 0;
        } else if (strcmp(option, "--kill-after") == 0) {
            good = value != NULL && parse_seconds(value, &options.kill_after);
        } else if (strcmp(option, "--parent") == 0) {
            good = value != NULL && parse_pid(value, &options.parent);
        } else if (strcmp(option, "--filter") == 0) {
            good = value != NULL && options.filter.instructions == NULL && filter_parse(&options.filter, value) == NULL;
        } else if (strcmp(option, "--hide") == 0) {
            good = hide_variables(value);
        } else if (strcmp(option, "--report") == 0) {
            options.report = value;
            good = value != NULL && value[0] != '\0';
        } else if (strcmp(option, "--stdout") == 0) {
            options.stdout_file = value;
            good = value != NULL && value[0] != '\0';
        } else if (strcmp(option, "--stderr") == 0) {
            options.stderr_file = value;
            good = value != NULL && value[0] != '\0';
        } else {
            return refuse("unknown option", option);
        }
        if (!good)
            return refuse("a bad or missing value for", option);
        next++;
    }
    if (*next == NULL)
        return refuse("no command given", NULL);
    if ((options.stdout_file == NULL) != (options.stderr_file == NULL))
        return refuse("--stdout and --stderr go together", NULL);
    if (options.plain_status && options.report == NULL)
        return refuse("--plain-status needs --report", NULL);
    options.command = next;
    return run_command(&options);
}

/* "DEVICE:INODE", in digits. */
static bool is_identity(const char *text)
{
    return text != NULL && text[0] != ':' && text[strspn(text, "0123456789")] == ':' &&
           text[strspn(text, "0123456789:")] == '\0' && text[strlen(text) - 1] != ':';
}

static int wait_form(char **arguments)
{
    struct wait_options options = {.patience = NO_DEADLINE};
    for (char **next = arguments; *next != NULL; next += 2) {
        const char *option = next[0], *value = next[1];
        bool good;
        if (strcmp(option, "--source") == 0) {
            options.sources = next;
            for (; *next != NULL; next += 3)
                if (strcmp(*next, "--source") != 0 || !is_identity(next[1]) || next[2] == NULL)
                    return refuse("a bad or missing value for", option);
            break;
        }
        if (strcmp(option, "--boot") == 0) {
            options.boot = value;
            good = value != NULL;
        } else if (strcmp(option, "--socket") == 0) {
            options.socket = value;
            good = value != NULL && value[0] != '\0';
        } else if (strcmp(option, "--hide") == 0) {
            good = hide_variables(value);
        } else if (strcmp(option, "--patience") == 0) {
            good = value != NULL && parse_seconds(value, &options.patience) && options.patience > 0;
        } else {
            return refuse("unknown option", option);
        }
        if (!good)
            return refuse("a bad or missing value for", option);
    }
    if ((options.boot == NULL) != (options.sources == NULL))
        return refuse("--boot and --source need each other", NULL);
    return wait_for_call(&options);
}

static int join_form(char **arguments)
{
    struct join_options options = {0};
    char **next = arguments;
    for (; *next != NULL && (*next)[0] == '-' && strcmp(*next, "--") != 0; next++) {
        const char *option = *next;
        if (strcmp(option, "--private-mounts") == 0) {
            options.private_mounts = true;
        } else if (strcmp(option, "--group") == 0 && next[1] != NULL) {
            options.group = *++next;
        } else if (strcmp(option, "--overlay") == 0 && next[1] != NULL && parse_size(next[2])) {
            options.overlay = *++next;
            options.layer_size = *++next;
        } else {
            return refuse("an unknown option, or a bad or missing value for", option);
        }
    }
    options.files = next;
    while (*next != NULL && strcmp(*next, "--") != 0)
        next++;
    if (*next == NULL || next[1] == NULL)
        return refuse("no command given", NULL);
    options.command = next + 1;
    return join(&options);
}

static int print(const char *text)
{
    return write(STDOUT_FILENO, text, strlen(text)) < 0 ? EXIT_SETUP : 0;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return refuse("no form given", NULL);
    if (strcmp(argv[1], "run") == 0)
        return run_form(argv + 2);
    if (strcmp(argv[1], "wait") == 0)
        return wait_form(argv + 2);
    if (strcmp(argv[1], "join") == 0)
        return join_form(argv + 2);
    if (strcmp(argv[1], "--version") == 0)
        return print(version);
    if (strcmp(argv[1], "--help") == 0)
        return print(usage);
    return refuse("unknown form", argv[1]);
}
