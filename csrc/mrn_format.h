/* The index segment file (*.mrx): layout, constants, id numbers. docs/format.md explains it byte by byte.
 *
 * All numbers are little-endian and unsigned. Places are counted from the start of the file, except those of
 * records, which are counted from the start of their section. Id numbers are appended, never reused.
 *
 *   header         64 bytes, MRN_HEADER_*
 *   section table  section_count entries of 32 bytes, MRN_SECTION_*
 *   sections       each begins at the next multiple of 64; the bytes between are zero
 */
#ifndef MRN_FORMAT_H
#define MRN_FORMAT_H

#include <stdint.h>

/* clang-format off */

/* cdef: begin ------------------------------------------------------------------------------------------- */

enum {
    MRN_INDEX_VERSION = 1,   /* of the layout; a reader refuses a higher one */
    MRN_FOLD_VERSION = 1,    /* of fold_table.h; a reader refuses any other one: the keys would not be found */
    MRN_ALIGNMENT = 64,

    MRN_TEXT_MAX = 1024,     /* bytes of a text as shown */
    MRN_KEY_MAX = 1024,      /* bytes of a folded text */
    MRN_PAYLOAD_MAX = 65536, /* bytes of a payload */
    MRN_QUERY_MAX = 256,     /* bytes of a query, before and after folding */
    MRN_LIMIT_MAX = 100      /* completions of one query */
};

enum mrn_header_field {
    MRN_HEADER_MAGIC = 0,          /* 8 bytes: 89 'M' 'R' 'X' 0D 0A 1A 0A, broken by any text-mode copy */
    MRN_HEADER_VERSION = 8,        /* u32 */
    MRN_HEADER_FOLD_VERSION = 12,  /* u32 */
    MRN_HEADER_FILE_BYTES = 16,    /* u64 */
    MRN_HEADER_ENTRIES = 24,       /* u64: documents in the segment */
    MRN_HEADER_SECTIONS = 32,      /* u32: 1..MRN_SECTION_COUNT_MAX */
    MRN_HEADER_FLAGS = 36,         /* u32: 0 */
    MRN_HEADER_CHECKSUM = 40,      /* u32: CRC32C of the header and the section table, this field taken as 0 */
    MRN_HEADER_RESERVED = 44,      /* 20 bytes: 0 */
    MRN_HEADER_BYTES = 64
};

enum mrn_section_field {
    MRN_SECTION_ID = 0,            /* u32: enum mrn_section_id */
    MRN_SECTION_FLAGS = 4,         /* u32: enum mrn_section_flag */
    MRN_SECTION_OFFSET = 8,        /* u64: a multiple of MRN_ALIGNMENT */
    MRN_SECTION_LENGTH = 16,       /* u64 */
    MRN_SECTION_CHECKSUM = 24,     /* u32: CRC32C of the section */
    MRN_SECTION_WIDTH = 28,        /* u32: records: bytes of a record's place, 3 or 4; else 0 */
    MRN_SECTION_BYTES = 32,
    MRN_SECTION_COUNT_MAX = 16
};

enum mrn_section_id { MRN_SECTION_RECORDS = 1 };

/* A reader that does not know a section refuses the file, unless the section says that it may be skipped. */
enum mrn_section_flag { MRN_SECTION_OPTIONAL = 1 };

/* The first byte of a record. A reader refuses a flag that it does not know. */
enum mrn_record_flag {
    MRN_RECORD_BRANCHES = 1,  /* a branch table follows the suffix */
    MRN_RECORD_WIDE = 2,      /* the suffix has more than 255 bytes: its length and the positions take 2 bytes */
    MRN_RECORD_FLOAT = 4,     /* the score is a float64, not an integer */
    MRN_RECORD_PAYLOAD = 8    /* a payload follows the text */
};

/* cdef: end --------------------------------------------------------------------------------------------- */

/* clang-format on */

#endif
