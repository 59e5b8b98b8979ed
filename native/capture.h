/* A command's output, kept in two files while the command runs. */
#ifndef CAPTURE_H
#define CAPTURE_H

#include <stddef.h>
#include <stdint.h>

/* Both streams: standard output, standard error. */
struct capture {
    int signals;      /* a signalfd for every signal */
    int pipes[2];     /* our ends; -1: it has ended */
    int files[2];
    int shown_on[2];  /* our own streams; -1: no more of it is shown there */
    size_t shown[2];
    int error;        /* an errno: the files do not have all of it */
};

/* Opens the files and makes pipes for the command; `streams` are its three. NULL, or the step that failed. */
const char *capture_open(struct capture *capture, const char *const paths[2], int streams[3]);

/* The command holds its ends now. */
void capture_started(struct capture *capture, const int streams[3]);

/* Moves what has come, waiting until something does, a signal comes, or `due` (see now()) passes. Returns the signal,
 * or 0. */
int capture_wait(struct capture *capture, int64_t due);

/* Moves what is left in the pipes when the whole tree is gone. */
void capture_rest(struct capture *capture);

#endif
