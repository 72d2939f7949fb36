#include "crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace gaia {

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // 0x1EDC6F41, reflected

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) {
      remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? kPolynomial : 0);
    }
    table[byte] = remainder;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

}  // namespace

uint32_t crc32c_by_table(uint32_t seed, const uint8_t* data, size_t bytes) {
  uint32_t remainder = ~seed;
  for (size_t i = 0; i < bytes; ++i) remainder = (remainder >> 8) ^ kTable[(remainder ^ data[i]) & 0xFF];
  return ~remainder;
}

#if defined(__x86_64__)

bool crc32c_has_instruction() { return __builtin_cpu_supports("sse4.2") != 0; }

__attribute__((target("sse4.2"))) uint32_t crc32c_by_instruction(uint32_t seed, const uint8_t* data,
                                                                 size_t bytes) {
  uint64_t remainder = static_cast<uint32_t>(~seed);
  for (; bytes >= sizeof(uint64_t); bytes -= sizeof(uint64_t), data += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, data, sizeof word);
    remainder = _mm_crc32_u64(remainder, word);
  }
  auto rest = static_cast<uint32_t>(remainder);
  for (; bytes > 0; --bytes, ++data) rest = _mm_crc32_u8(rest, *data);
  return ~rest;
}

#else

bool crc32c_has_instruction() { return false; }

uint32_t crc32c_by_instruction(uint32_t seed, const uint8_t* data, size_t bytes) {
  return crc32c_by_table(seed, data, bytes);
}

#endif

uint32_t crc32c_update(uint32_t seed, const uint8_t* data, size_t bytes) {
  return crc32c_has_instruction() ? crc32c_by_instruction(seed, data, bytes)
                                  : crc32c_by_table(seed, data, bytes);
}

}  // namespace gaia
