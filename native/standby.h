/* What a process that was there ahead of its call gets for it: descriptors, over a unix socket. */
#ifndef STANDBY_H
#define STANDBY_H

#include <stdbool.h>

/* Waits for them on standard input, and gives each the number that it is to have; standard streams that do not come are
 * the null device, as standard error is. `first` gets the numbers of the first two. `ours` (NULL at its end) stay open,
 * under whichever numbers. False if the socket has ended, or what came is something else. */
bool receive_descriptors(int first[2], int *const ours[]);

#endif
