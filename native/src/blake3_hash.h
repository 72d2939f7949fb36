// BLAKE3-256 of pages, of short pieces and of any bytes. The results are the ordinary ones; only the order of
// the work is chosen so that the SIMD lanes hold different inputs.
//
//   page  = chunk 0 | chunk 1 | chunk 2 | chunk 3       1024 bytes each
//              \       /           \       /
//              parent L             parent R
//                      \           /
//                          root
#ifndef GAIA_BLAKE3_HASH_H
#define GAIA_BLAKE3_HASH_H

#include <cstddef>
#include <cstdint>

#include "hash_level.h"

namespace gaia {

constexpr size_t kHashPageBytes = 4096;
constexpr size_t kChunkBytes = 1024;
constexpr size_t kPageBatchMax = kLanesMax;

// Hashes `count` (at most kPageBatchMax) pages to `out`, kHashBytes each.
void hash_page_batch(const HashLevel& level, const uint8_t* const* pages, size_t count, uint8_t* out);

// Hashes `count` (at most kLanesMax) pieces of `piece_bytes` (1 to kChunkBytes) to `hashes`, kHashBytes each.
// `inputs` and `hashes` must have room for kLanesMax: what comes after the pieces and their hashes is
// overwritten.
void hash_piece_batch(const HashLevel& level, const uint8_t** inputs, size_t piece_bytes, size_t count,
                      uint8_t* hashes);

// Hashes `bytes` (which may be 0) to the kHashBytes of `out`.
void hash_bytes(const HashLevel& level, const uint8_t* input, size_t bytes, uint8_t* out);

}  // namespace gaia

#endif
