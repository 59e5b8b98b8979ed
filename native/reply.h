/* What goes back to the caller of a sandbox: frames, see FRAMING.md. */
#ifndef REPLY_H
#define REPLY_H

#include "outcome.h"

/* Frames on the descriptor `to`; -1: nobody listens. */
void reply_end(int to, const struct outcome *outcome);
void reply_refusal(int to, const char *reason);

/* A sandbox that could not be made: what failed, where (NULL: nowhere), and what would help. It goes before the end. */
void reply_failure(int to, const struct outcome *outcome, const char *where);

#endif
