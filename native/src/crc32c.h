// CRC-32C (Castagnoli, reflected, RFC 3720 appendix B.4). Both roads give the same value for all bytes.
#ifndef GAIA_CRC32C_H
#define GAIA_CRC32C_H

#include <cstddef>
#include <cstdint>

namespace gaia {

// The checksum of what `seed` already covers (0: nothing) followed by `bytes`, by the fastest road.
uint32_t crc32c_update(uint32_t seed, const uint8_t* data, size_t bytes);

// The two roads, for the test that holds them equal.
uint32_t crc32c_by_table(uint32_t seed, const uint8_t* data, size_t bytes);
bool crc32c_has_instruction();
uint32_t crc32c_by_instruction(uint32_t seed, const uint8_t* data, size_t bytes);

}  // namespace gaia

#endif
