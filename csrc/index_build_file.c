/* The index file as it grows: sections, numbers, blobs. */

#include "crc32c.h"
#include "index_build.h"

#include <stdlib.h>

uint8_t *put(uint8_t *at, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + width;
}

uint8_t *reserve(output *o, size_t bytes) {
    if (!o->failed && o->room - o->used < bytes) {
        size_t room = o->used + bytes > SIZE_MAX / 2 ? 0 : o->room * 3 / 2 + bytes;
        uint8_t *grown = room == 0 ? NULL : realloc(o->bytes, room);
        if (grown == NULL) {
            o->failed = 1;
        } else {
            o->bytes = grown;
            o->room = room;
        }
    }
    return o->failed ? NULL : o->bytes + o->used;
}

void append(output *o, const void *from, size_t bytes) {
    uint8_t *at = reserve(o, bytes);
    if (at == NULL)
        return;
    if (bytes > 0)
        memcpy(at, from, bytes);
    o->used += bytes;
}

void append_number(output *o, uint64_t value, size_t width) {
    uint8_t *at = reserve(o, width);
    if (at == NULL)
        return;
    put(at, value, width);
    o->used += width;
}

void append_zeros(output *o, size_t bytes) {
    uint8_t *at = reserve(o, bytes);
    if (at == NULL)
        return;
    memset(at, 0, bytes);
    o->used += bytes;
}

size_t open_section(output *o) {
    append_zeros(o, (MRN_ALIGNMENT - o->used % MRN_ALIGNMENT) % MRN_ALIGNMENT);
    return o->used;
}

int close_section(output *o, size_t start, unsigned id, uint32_t items) {
    append_zeros(o, MRN_SLACK);
    if (o->failed)
        return MRN_E_NO_MEMORY;
    if (o->used - start > UINT32_MAX)
        return MRN_E_TOO_LARGE;
    uint8_t *entry = o->bytes + MRN_HEADER_BYTES + (size_t)o->sections * MRN_SECTION_BYTES;
    put(entry + MRN_SECTION_ID, id, 4);
    put(entry + MRN_SECTION_FLAGS, 0, 4);
    put(entry + MRN_SECTION_OFFSET, start, 8);
    put(entry + MRN_SECTION_LENGTH, o->used - start, 8);
    put(entry + MRN_SECTION_CHECKSUM, crc32c(0, o->bytes + start, o->used - start), 4);
    put(entry + MRN_SECTION_ITEMS, items, 4);
    o->sections++;
    return MRN_OK;
}

int write_numbers(output *o, unsigned id, const uint64_t *values, size_t count) {
    size_t groups = (count + MRN_NUMBER_GROUP - 1) / MRN_NUMBER_GROUP, start = open_section(o);
    append_zeros(o, 4 * groups);
    for (size_t g = 0; g < groups; g++) {
        const uint64_t *group = values + g * MRN_NUMBER_GROUP;
        size_t here =
            count - g * MRN_NUMBER_GROUP < MRN_NUMBER_GROUP ? count - g * MRN_NUMBER_GROUP : MRN_NUMBER_GROUP;
        uint64_t low = group[0] < group[here - 1] ? group[0] : group[here - 1],
                 high = group[0] < group[here - 1] ? group[here - 1] : group[0];
        unsigned bits = bit_length(high - low);
        bits = bits > 57 ? 64 : bits;
        uint8_t *at = reserve(o, 9 + 8 * MRN_NUMBER_GROUP);
        if (at == NULL)
            break;
        put(o->bytes + start + 4 * g, o->used - start, 4);
        at = put(at, low, 8);
        *at++ = (uint8_t)bits;
        uint64_t pending = 0;
        unsigned filled = 0;
        for (size_t i = 0; i < here; i++) {
            if (bits == 64) {
                at = put(at, group[i] - low, 8);
                continue;
            }
            pending |= (group[i] - low) << filled;
            for (filled += bits; filled >= 8; filled -= 8, pending >>= 8)
                *at++ = (uint8_t)pending;
        }
        if (filled > 0)
            *at++ = (uint8_t)pending;
        o->used = (size_t)(at - o->bytes);
    }
    return close_section(o, start, id, (uint32_t)count);
}

int write_blobs(output *o, unsigned id, blob_function *blob, const void *of, size_t count) {
    size_t groups = (count + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP, bytes = 0, first = 0;
    while (first < count && (blob(of, first, &bytes), bytes == 0))
        first++;
    if (first == count)
        return MRN_OK;
    size_t start = open_section(o);
    append_zeros(o, 4 * groups);
    for (size_t g = 0; g < groups && !o->failed; g++) {
        put(o->bytes + start + 4 * g, o->used - start, 4);
        size_t lengths = o->used;
        append_zeros(o, MRN_NODE_GROUP);
        for (size_t i = 0; i < MRN_NODE_GROUP && g * MRN_NODE_GROUP + i < count; i++) {
            const uint8_t *from = blob(of, g * MRN_NODE_GROUP + i, &bytes);
            if (bytes >= BLOB_LONG)
                append_number(o, bytes, 4);
            append(o, from, bytes);
            if (!o->failed)
                o->bytes[lengths + i] = (uint8_t)(bytes < BLOB_LONG ? bytes : BLOB_LONG);
        }
    }
    return close_section(o, start, id, (uint32_t)count);
}
