/* A /dev with what every program expects, and nothing of the machine's. */
#ifndef DEVICES_H
#define DEVICES_H

#include <stdbool.h>
#include <stdint.h>

/* Puts it at `place`. The device files are those of `root` (the machine's), each looked at before it is mounted: a user
 * namespace may make none of its own. `shared_memory`: bytes of shm, 0 for none. False and errno if something failed;
 * `*where` names it then. */
bool put_devices(int root, int place, uint64_t shared_memory, bool has_terminals, const char **where);

#endif
