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
    MRN_INDEX_VERSION = 2,   /* of the layout; a reader refuses any other one: build the index again */
    MRN_FOLD_VERSION = 1,    /* of fold_table.h; a reader refuses any other one: the keys would not be found */
    MRN_ALIGNMENT = 64,

    MRN_TEXT_MAX = 1024,     /* bytes of a text as shown */
    MRN_KEY_MAX = 1024,      /* bytes of a folded text */
    MRN_PAYLOAD_MAX = 65536, /* bytes of a payload */
    MRN_JSON_DEPTH_MAX = 200, /* arrays and objects inside each other in a payload */
    MRN_QUERY_MAX = 256,     /* bytes of a query, before and after folding */
    MRN_LIMIT_MAX = 100,     /* completions of one query */
    MRN_TAGS_MAX = 64,       /* different contexts in a segment */
    MRN_TAG_MAX = 64,        /* bytes of a context's name */
    MRN_ID_MAX = 256,        /* bytes of a document's id */
    MRN_WORDS_MAX = 32,      /* words of a text that can be found, from the second on */
    MRN_WORD_KEY_MAX = 64    /* bytes of a key that begins at such a word; cut between characters */
};

enum mrn_header_field {
    MRN_HEADER_MAGIC = 0,          /* 8 bytes: 89 'M' 'R' 'X' 0D 0A 1A 0A, broken by any text-mode copy */
    MRN_HEADER_VERSION = 8,        /* u32 */
    MRN_HEADER_FOLD_VERSION = 12,  /* u32 */
    MRN_HEADER_FILE_BYTES = 16,    /* u64 */
    MRN_HEADER_ENTRIES = 24,       /* u64: documents in the segment */
    MRN_HEADER_SECTIONS = 32,      /* u32: 1..MRN_SECTION_COUNT_MAX */
    MRN_HEADER_FLAGS = 36,         /* u32: enum mrn_index_flag */
    MRN_HEADER_CHECKSUM = 40,      /* u32: CRC32C of the header and the section table, this field taken as 0 */
    MRN_HEADER_RESERVED = 44,      /* 20 bytes: 0 */
    MRN_HEADER_BYTES = 64
};

enum mrn_index_flag {
    MRN_INDEX_WORDS = 1,  /* entries are found by any of their words: the sections of words are there */
    MRN_INDEX_CAMEL = 2,  /* words also begin at the capitals of camelCase */
    MRN_INDEX_FLOAT = 4   /* scores are the bits of float64s, not integers */
};

enum mrn_section_field {
    MRN_SECTION_ID = 0,            /* u32: enum mrn_section_id */
    MRN_SECTION_FLAGS = 4,         /* u32: enum mrn_section_flag */
    MRN_SECTION_OFFSET = 8,        /* u64: a multiple of MRN_ALIGNMENT */
    MRN_SECTION_LENGTH = 16,       /* u64: below 4 GiB */
    MRN_SECTION_CHECKSUM = 24,     /* u32: CRC32C of the section */
    MRN_SECTION_ITEMS = 28,        /* u32: nodes, numbers, blobs or masks in it */
    MRN_SECTION_BYTES = 32,
    MRN_SECTION_COUNT_MAX = 16
};

enum mrn_section_id {
    MRN_SECTION_KEYS = 1,       /* trie of the keys, a node an entry, in rank order */
    MRN_SECTION_WORDS = 2,      /* trie of the keys from each further word on, in rank order of their entries */
    MRN_SECTION_WORD_ENTRIES = 3, /* numbers: the entry of each node of the words, ascending */
    MRN_SECTION_TIES = 4,       /* which entries have one score */
    MRN_SECTION_SCORES = 5,     /* numbers: the different scores, descending */
    MRN_SECTION_TEXTS = 6,      /* blobs: the texts as shown; empty where that is the key */
    MRN_SECTION_PAYLOADS = 7,   /* blobs */
    MRN_SECTION_TAGS = 8,       /* the names of the contexts */
    MRN_SECTION_MASKS = 9,      /* the contexts of each entry */
    MRN_SECTION_KEY_MASKS = 10, /* those of each node of the keys and all below it */
    MRN_SECTION_WORD_MASKS = 11, /* likewise of the words */
    MRN_SECTION_IDS = 12,       /* blobs: the id of the document that each entry is a name of; empty for none */
    MRN_SECTION_ID_END = 13
};

/* A reader that does not know a section refuses the file, unless the section says that it may be skipped. */
enum mrn_section_flag { MRN_SECTION_OPTIONAL = 1 };

/* The byte that a group has for each of its nodes. */
enum mrn_node_byte {
    MRN_NODE_BYTES = 0x3f,    /* bytes of the node in the group */
    MRN_NODE_FAR = 0x40,      /* they are a place in the section, where the node is */
    MRN_NODE_BRANCHES = 0x80,
    MRN_NODE_GROUP = 16,      /* nodes in a group; also blobs in one */
    MRN_NUMBER_GROUP = 64,    /* numbers in a group */
    MRN_SLACK = 8             /* zero bytes at the end of a section, so that 8 may be read at once anywhere */
};

/* cdef: end --------------------------------------------------------------------------------------------- */

/* clang-format on */

#endif
