/* A signal to the whole tree of processes below this one. */
#ifndef TREE_H
#define TREE_H

#include <sys/types.h>

/* Sends `sig` to every descendant of this process, however it hid, except to this process itself.
 *
 * Needs that this process is PID 1 or a child subreaper (keep_the_tree() in command.h): only then does every descendant
 * stay one. `command` is the session that the command leads: all that can be reached where /proc is absent and we are
 * not PID 1.
 *
 * One call reaches what is there while it looks. What is forked by a process that it has not met yet may be missed, so
 * a caller that wants the end of all asks again until wait says that there are no children (supervise.c).
 */
void signal_tree(int sig, pid_t command);

#endif
