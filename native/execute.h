/* Becoming a command. */
#ifndef EXECUTE_H
#define EXECUTE_H

/* Becomes the command, which is looked up on the PATH of this process's environment: execvp(3), with two differences. A
 * file that the kernel does not know as a program is an error whichever libc this is linked with: glibc would hand it
 * to a shell. And a folder of the PATH that this user may not enter (root's own, in an image that now runs as nobody)
 * is passed over: a command that is in no other is not there (ENOENT), as to a shell, rather than forbidden. Returns
 * only if it fails, with errno set. */
void execute(char *const words[]);

#endif
