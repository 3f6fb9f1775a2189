/* CRC32C (Castagnoli; RFC 3720, appendix B.4), with the CPU's own instruction where it has one. */
#ifndef MRN_CRC32C_H
#define MRN_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue a checksum over more bytes; 0 begins one. crc32c(0, "123456789", 9) is 0xE3069283. */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

/* The same without the CPU's instruction, for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t bytes);

#endif
