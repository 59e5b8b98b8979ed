/* What became of the trees of a call: sent to its caller once the command has ended, and all that it started. */
#ifndef FINDINGS_H
#define FINDINGS_H

#include "relay.h"

#include <stdbool.h>

/* Why a tree's findings are not all of them; the numbers are those of FOUND_END frames (FRAMING.md). */
enum shortfall {
    FOUND_WHOLE = 0,
    FOUND_MORE_ENTRIES = 1, /* than the TREE may have */
    FOUND_MORE_BYTES = 2,
    FOUND_UNREADABLE = 3, /* with an errno */
    FOUND_TOO_DEEP = 4,   /* or with a path of more than 4095 bytes */
    FOUND_BUSY = 5,       /* something that the command started cannot be ended */
};

/* Sends them, of those trees that come back. `is_gone`: whether nothing of the command is left. */
void send_findings(struct relay *relay, bool is_gone);

#endif
