/* The channel of a waiting praxis-init, and the command's three streams: bytes from one to the other. */
#ifndef RELAY_H
#define RELAY_H

#include "call.h"
#include "frames.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STDIN_WINDOW = 256 * 1024,       /* bytes of standard input that may be on their way or held here */
    CREDIT_STEP = STDIN_WINDOW / 4, /* one credit frame for so many */
    LAST_WORDS = 128, /* END or REFUSED, which may come behind output that nobody takes */
    OUT_FOR_OUTPUT = FRAME_HEADER + OUTPUT_PAYLOAD,
    OUT_CAPACITY = OUT_FOR_OUTPUT + 4 * FRAME_HEADER + LAST_WORDS, /* output, and what else is due */
};

struct relay {
    int in, out, signals; /* the channel; a signalfd for every signal */
    bool lost;            /* the channel has ended or broken: nothing is left to do but to end all */
    const char *refusal;  /* why what came is not a call */
    struct call call;
    int64_t heard; /* when something of the call came last */
    int tool_stdin, tool_output[2]; /* our ends; -1: none, or closed */
    int next_output;                /* whose turn it is */
    int64_t quiet;                  /* until then output stays in the command's pipes; 0: it has passed */

    size_t window;         /* bytes that the other end may still send */
    bool stdin_ends;       /* all of it has come */
    bool stdin_closed;     /* the command does not read it any more, and that has been sent */
    bool closed_due;       /* to be sent */
    uint32_t credit_due;   /* bytes that the command has taken and the other end does not know of */
    size_t stdin_begin, stdin_end, out_begin, out_end;
    struct frame_reader reader;
    uint8_t stdin_held[STDIN_WINDOW];
    uint8_t out_held[OUT_CAPACITY];
};

/* Ours are the channel's two descriptors, made non-blocking; NULL, or the step that failed. */
const char *relay_open(struct relay *relay, int in, int out);

/* Pipes for the command; `streams` are its ends. */
const char *relay_make_pipes(struct relay *relay, int streams[3]);

/* The command holds its ends now. */
void relay_started(struct relay *relay, const int streams[3]);

/* Moves what can be moved, waiting until something can, a signal comes, or `due` (see now()) passes.
 * Returns the signal, or 0. */
int relay_wait(struct relay *relay, int64_t due);

/* The channel has ended, or carried invalid data: the command must go. */
bool relay_is_over(const struct relay *relay);

/* A short frame of ours behind what is queued already. Where there is no room it is left out: nobody takes what we say
 * then, or there would be some. */
void relay_queue(struct relay *relay, enum frame_type type, const uint8_t *payload, uint32_t length);

/* Room for a frame of ours of so much payload (at most OUTPUT_PAYLOAD), waiting until others have been taken; NULL when the
 * channel ends, nothing moves for long, or a signal asks us to leave, which loses the channel. */
uint8_t *relay_reserve(struct relay *relay, uint32_t length);

/* The frame of which the payload was put there. */
void relay_put(struct relay *relay, enum frame_type type, uint32_t length);

/* Takes what is left in the command's pipes into the queue; false where that is not all. */
bool relay_gather(struct relay *relay);

/* Sends all that is left in the command's pipes and in the queue; gives up when nothing moves for long, or the channel
 * ends. */
void relay_flush(struct relay *relay);

/* Waits until the caller has hung up: where a channel is forwarded (Dagger), what is on its way is lost with us. */
void relay_linger(struct relay *relay);

#endif
