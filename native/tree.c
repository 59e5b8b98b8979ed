/* Process groups and sessions do not bound a tool: setsid() leaves both. Descent does, because this process is PID 1
 * or a child subreaper, so that whatever loses its parent becomes our child. Descendants are found by the parent
 * field of /proc/PID/stat; as PID 1 of a pid namespace kill(-1) reaches them all at once and needs no /proc.
 */
#include "tree.h"

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Each pass is one walk of /proc. More than one is needed only while something forks as fast as we look. */
static const int MOST_PASSES = 100;

/* The descendants seen so far, ascending. Kept between calls only to keep the memory. */
static pid_t *seen;
static size_t seen_count, seen_capacity;

/* The place of pid in `seen`, or where it belongs. */
static size_t place_of(pid_t pid)
{
    size_t low = 0, high = seen_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (seen[middle] < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_seen(pid_t pid)
{
    size_t place = place_of(pid);
    return place < seen_count && seen[place] == pid;
}

static bool remember(pid_t pid)
{
    if (seen_count == seen_capacity) {
        size_t capacity = seen_capacity == 0 ? 256 : seen_capacity * 2;
        pid_t *larger = realloc(seen, capacity * sizeof *seen);
        if (larger == NULL)
            return false;
        seen = larger;
        seen_capacity = capacity;
    }
    size_t place = place_of(pid);
    memmove(seen + place + 1, seen + place, (seen_count - place) * sizeof *seen);
    seen[place] = pid;
    seen_count++;
    return true;
}

/* The parent of the process whose /proc directory is open as `process`; -1 if it is gone. */
static pid_t parent_of(int process)
{
    char text[512];
    if (read_text(process, "stat", text, sizeof text) <= 0)
        return -1;
    /* "PID (NAME) STATE PARENT ...": a process chooses its name, which may hold spaces and parentheses. */
    const char *after_name = strrchr(text, ')');
    if (after_name == NULL || strlen(after_name) < 5)
        return -1;
    return (pid_t)atoi(after_name + 4);
}

static void send(int process, pid_t pid, int sig)
{
    /* An open /proc/PID directory stands for that very process, so a number that was reused is never hit. */
    if (syscall(SYS_pidfd_send_signal, process, sig, NULL, 0) == 0 || errno == ESRCH)
        return;
    kill(pid, sig); /* Linux before 5.1, or a container's filter that does not know the call */
}

/* One walk: signals the descendants not seen before, and says whether there were any. */
static bool signal_new_descendants(DIR *proc, pid_t self, int sig)
{
    bool any = false;
    rewinddir(proc);
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0 || pid == self || is_seen(pid))
            continue;
        int process = openat(dirfd(proc), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (process < 0)
            continue;
        pid_t parent = parent_of(process);
        /* Signalled while walking, not after it: a process that forks and exits in a chain is already its child
         * by the time a finished list would be used. A child listed before its parent is met by the next pass. */
        if ((parent == self || is_seen(parent)) && remember(pid)) {
            send(process, pid, sig);
            any = true;
        }
        close(process);
    }
    return any;
}

/* /proc, if it is mounted and shows our own pid namespace. In another one its numbers would name strangers. */
static DIR *open_own_proc(pid_t self)
{
    char target[32];
    ssize_t length = readlink("/proc/self", target, sizeof target - 1);
    if (length <= 0)
        return NULL;
    target[length] = '\0';
    return (pid_t)atoi(target) == self ? opendir("/proc") : NULL;
}

static void sweep(DIR *proc, pid_t self, int sig)
{
    seen_count = 0;
    for (int pass = 0; pass < MOST_PASSES && signal_new_descendants(proc, self, sig); pass++)
        ;
}

void signal_tree(int sig, pid_t command)
{
    pid_t self = getpid();
    if (self == 1) {
        kill(-1, sig);
        return;
    }
    DIR *proc = open_own_proc(self);
    if (proc == NULL) {
        kill(-command, sig);
        return;
    }
    /* Frozen first: a fork bomb at its process limit would fill every place that a kill frees. */
    if (sig == SIGKILL)
        sweep(proc, self, SIGSTOP);
    sweep(proc, self, sig);
    closedir(proc);
}
