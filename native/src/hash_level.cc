// The library's assembly loads more than a block where it works on two or four inputs at once: 16 bytes past
// the end of an input with AVX2, 48 with AVX-512 (seen in 1.3.1). At the end of a mapping that kills the
// process. Its loops over 8 and 16 inputs and over a single one are exact, so the others are never entered:
// between 2 and 7 inputs, and what is left over above a multiple of 8, are filled up with repetitions of the
// first. That costs no time to speak of, since the lanes run anyway.
#include "hash_level.h"

#include <cstring>

// The library's inner functions, which its public header leaves out; stable since BLAKE3 1.0.
#define GAIA_BLAKE3_DECLARE_HASH_MANY(level)                                                     \
  void blake3_hash_many_##level(const uint8_t* const* inputs, size_t input_count, size_t blocks, \
                                const uint32_t key[8], uint64_t counter, bool increment_counter, \
                                uint8_t flags, uint8_t flags_start, uint8_t flags_end, uint8_t* out)
#define GAIA_BLAKE3_DECLARE_COMPRESS(level)                                                           \
  void blake3_compress_in_place_##level(uint32_t cv[8], const uint8_t block[64], uint8_t block_bytes, \
                                        uint64_t counter, uint8_t flags)

extern "C" {
GAIA_BLAKE3_DECLARE_HASH_MANY(portable);
GAIA_BLAKE3_DECLARE_COMPRESS(portable);
#if defined(__x86_64__)
GAIA_BLAKE3_DECLARE_HASH_MANY(sse41);
GAIA_BLAKE3_DECLARE_HASH_MANY(avx2);
GAIA_BLAKE3_DECLARE_HASH_MANY(avx512);
GAIA_BLAKE3_DECLARE_COMPRESS(sse41);
GAIA_BLAKE3_DECLARE_COMPRESS(avx512);
#endif
}

namespace gaia {

namespace {

bool always() { return true; }

#if defined(__x86_64__)
// GCC's answers include whether the operating system keeps the registers.
bool has_sse41() { return __builtin_cpu_supports("sse4.1") != 0; }
bool has_avx2() { return __builtin_cpu_supports("avx2") != 0 && has_sse41(); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
#endif

}  // namespace

// From the fastest to the slowest.
const HashLevel HashLevel::kLevels[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, 8, blake3_hash_many_avx512, blake3_compress_in_place_avx512},
    {"avx2", has_avx2, 8, blake3_hash_many_avx2, blake3_compress_in_place_sse41},
    {"sse41", has_sse41, 1, blake3_hash_many_sse41, blake3_compress_in_place_sse41},
#endif
    {"portable", always, 1, blake3_hash_many_portable, blake3_compress_in_place_portable},
};
const size_t HashLevel::kLevelCount = sizeof kLevels / sizeof kLevels[0];

const HashLevel* HashLevel::best() {
  const HashLevel* level = kLevels;
  // The last one, the portable level, is always there.
  while (!level->is_supported()) ++level;
  return level;
}

const HashLevel* HashLevel::find(const char* name) {
  for (size_t i = 0; i < kLevelCount; ++i) {
    if (std::strcmp(kLevels[i].name_, name) == 0) return &kLevels[i];
  }
  return nullptr;
}

void HashLevel::hash_many(const uint8_t** inputs, size_t count, size_t blocks, uint64_t counter,
                          Counter counting, HashFlags flags, uint8_t* out) const {
  size_t filled = count;
  if (count > 1) {
    while (filled % lanes_filled_ != 0) inputs[filled++] = inputs[0];
  }
  hash_many_(inputs, filled, blocks, kIv, counter, counting == Counter::kRising, flags.all, flags.first,
             flags.last, out);
}

}  // namespace gaia
