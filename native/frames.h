/* The bytes of a frame between a waiting praxis-init and its caller. FRAMING.md says what each means;
 * nothing here knows of descriptors or processes.
 */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMING_VERSION 1

enum {
    FRAME_HEADER = 8,
    /* The kernel's bound on one word or variable of a command (MAX_ARG_STRLEN), so no field needs two frames. */
    FRAME_PAYLOAD = 128 * 1024,
    OUTPUT_PAYLOAD = 64 * 1024, /* of one frame of ours */
};

/* A number that is missing stood for something that is gone, and is not used again. */
enum frame_type {
    /* To the waiter. */
    FRAME_CALL = 1,
    FRAME_ARGUMENT = 2,
    FRAME_VARIABLE = 3,
    FRAME_FILE = 5,
    FRAME_FILE_DATA = 6,
    FRAME_START = 7,
    FRAME_STDIN = 8,
    FRAME_STDIN_END = 9,
    FRAME_FILTER = 10,
    FRAME_TREE = 11,
    FRAME_TREE_DIRECTORY = 12,
    FRAME_TREE_FILE = 13,
    FRAME_TREE_LINK = 14,
    FRAME_FILE_HOLE = 15,
    /* Of a sandbox's layout (layout.c). */
    FRAME_LAYOUT = 16,
    FRAME_MOUNT = 17,
    FRAME_GROUP = 18,
    FRAME_LIMIT = 19,
    FRAME_LAID = 20,
    FRAME_MEMBERSHIP = 21,
    /* To a sandbox ahead of its call (standby.c). */
    FRAME_DESCRIPTORS = 22,
    FRAME_LAST_INCOMING = FRAME_DESCRIPTORS,
    /* From the waiter. */
    FRAME_HELLO = 129,
    FRAME_STDOUT = 130,
    FRAME_STDERR = 131,
    FRAME_STDIN_CREDIT = 132,
    FRAME_STDIN_CLOSED = 133,
    FRAME_END = 134,
    FRAME_REFUSED = 135,
    FRAME_DETAIL = 136,
    FRAME_FOUND_TREE = 137,
    FRAME_FOUND_GONE = 138,
    FRAME_FOUND_DIRECTORY = 139,
    FRAME_FOUND_FILE = 140,
    FRAME_FOUND_DATA = 141,
    FRAME_FOUND_HOLE = 142,
    FRAME_FOUND_LINK = 143,
    FRAME_FOUND_END = 144,
};

struct frame {
    enum frame_type type;
    const uint8_t *payload; /* valid until the next frame_reader_room() */
    uint32_t length;
};

/* Takes bytes in whatever pieces they come, gives whole frames. */
struct frame_reader {
    size_t begin, end; /* what is held and not yet given */
    uint8_t held[FRAME_HEADER + FRAME_PAYLOAD];
};

/* Where the next bytes go, and how many at most; never 0 once frame_reader_next() has said that there is no frame. */
size_t frame_reader_room(struct frame_reader *reader, uint8_t **where);
void frame_reader_took(struct frame_reader *reader, size_t count);

/* Why a frame is refused whose type means nothing to the waiter. */
extern const char unknown_frame[];

/* True and a frame; false when more bytes are needed, or, with *refusal set, when what came is not a frame. */
bool frame_reader_next(struct frame_reader *reader, struct frame *frame, const char **refusal);

void put_header(uint8_t *where, enum frame_type type, uint32_t length);
void put_u32(uint8_t *where, uint32_t value);
void put_u64(uint8_t *where, uint64_t value);
uint32_t get_u32(const uint8_t *where);
uint64_t get_u64(const uint8_t *where);

#endif
