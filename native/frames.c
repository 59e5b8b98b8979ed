/* A frame is one byte of type, three zeros, four of length, and the payload. Little-endian. The numbers are put
 * together byte by byte: a header may begin at any address.
 */
#include "frames.h"

#include <string.h>

const char unknown_frame[] = "a frame of a type that is unknown here";

void put_u32(uint8_t *where, uint32_t value)
{
    for (int index = 0; index < 4; index++)
        where[index] = (uint8_t)(value >> 8 * index);
}

void put_u64(uint8_t *where, uint64_t value)
{
    put_u32(where, (uint32_t)value);
    put_u32(where + 4, (uint32_t)(value >> 32));
}

uint32_t get_u32(const uint8_t *where)
{
    return where[0] | (uint32_t)where[1] << 8 | (uint32_t)where[2] << 16 | (uint32_t)where[3] << 24;
}

uint64_t get_u64(const uint8_t *where)
{
    return get_u32(where) | (uint64_t)get_u32(where + 4) << 32;
}

void put_header(uint8_t *where, enum frame_type type, uint32_t length)
{
    put_u32(where, (uint32_t)type); /* the upper three bytes are the zeros */
    put_u32(where + 4, length);
}

size_t frame_reader_room(struct frame_reader *reader, uint8_t **where)
{
    if (reader->begin != 0) {
        memmove(reader->held, reader->held + reader->begin, reader->end - reader->begin);
        reader->end -= reader->begin;
        reader->begin = 0;
    }
    *where = reader->held + reader->end;
    return sizeof reader->held - reader->end;
}

void frame_reader_took(struct frame_reader *reader, size_t count)
{
    reader->end += count;
}

bool frame_reader_next(struct frame_reader *reader, struct frame *frame, const char **refusal)
{
    size_t held = reader->end - reader->begin;
    const uint8_t *header = reader->held + reader->begin;
    if (held < FRAME_HEADER)
        return false;
    /* Before the payload is there: what is wrong is reported at once, not after bytes that may never come. */
    uint32_t type = get_u32(header), length = get_u32(header + 4);
    if (type == 0 || type > FRAME_LAST_INCOMING) {
        *refusal = unknown_frame;
        return false;
    }
    if (length > FRAME_PAYLOAD) {
        *refusal = "a frame with more than 128 KiB";
        return false;
    }
    if (held < FRAME_HEADER + (size_t)length)
        return false;
    *frame = (struct frame){(enum frame_type)type, header + FRAME_HEADER, length};
    reader->begin += FRAME_HEADER + (size_t)length;
    return true;
}
