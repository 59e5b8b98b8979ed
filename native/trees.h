/* Directories of a call whose content comes over the channel before the command, and, of those that come back, what was
 * there when it started: what of it has changed is found by comparing (findings.h). */
#ifndef TREES_H
#define TREES_H

#include "frames.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum {
    MOST_TREES = 64,
    MOST_TREE_ENTRIES = 131072, /* of all trees that come back, together */
};

enum tree_flag {
    TREE_RETURNS = 1,  /* what became of it comes back */
    TREE_ONE_FILE = 2, /* the path is that of a file, and the tree is that alone */
    TREE_FLAGS = TREE_RETURNS | TREE_ONE_FILE,
};

struct tree {
    uint32_t flags;
    int root;         /* of one file: the directory around it */
    const char *only; /* of one file: its name; else NULL */
    uint32_t most_entries, entries;
    uint64_t most_bytes, bytes;
};

/* What was there when the command started. */
struct tree_entry {
    size_t tree;
    const char *path;
    mode_t mode;
    ino_t inode;
    off_t size;
    struct timespec changed;
    bool seen; /* it is there still, changed or not */
};

struct trees {
    struct tree items[MOST_TREES];
    size_t count;
    struct tree_entry *entries; /* sorted by tree and path, once the command starts */
    size_t entry_count, entry_capacity, text;
    struct timespec newest;   /* of all changes */
    struct timespec modified; /* of the file that is being written */
    bool ends_in_hole;        /* that file */
    size_t looked;            /* the entry that came once more last */
    char where[256];          /* the path at which something failed, for people; it may be cut */
};

/* Takes a frame from TREE to TREE_LINK; NULL, or why it is refused. `*failed` where the system did not do it (errno).
 * `*file`: of a TREE_FILE, to be written to, and to be given to trees_end_file(). */
const char *trees_take(struct trees *trees, const struct frame *frame, int *file, bool *failed);

/* So many bytes more of the file that is being written. */
const char *trees_count(struct trees *trees, uint64_t bytes);

/* That many zeros in the file that is being written; false and errno if it did not work. */
bool trees_skip(struct trees *trees, int file, uint64_t bytes);

/* Closes the file, with its time. */
bool trees_end_file(struct trees *trees, int file);

/* All is there: from now on each change is seen. */
void trees_settle(struct trees *trees);

/* The entry of the path in a tree; NULL: nothing was there. */
struct tree_entry *trees_find(const struct trees *trees, size_t tree, const char *path);

#endif
