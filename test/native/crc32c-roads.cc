// Holds the two ways to a CRC-32C equal, for every length up to 600 bytes, alignment and some seeds.
#include <cstdio>
#include <initializer_list>

#include "crc32c.h"

int main() {
  if (!gaia::crc32c_has_instruction()) {
    std::puts("no instruction");
    return 0;
  }
  uint8_t content[608];
  uint32_t state = 1;
  for (uint8_t& byte : content) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(state >> 24);
  }
  for (const uint32_t seed : {0u, 1u, 0xE3069283u, 0xFFFFFFFFu}) {
    for (size_t shift = 0; shift < 8; ++shift) {
      for (size_t bytes = 0; bytes <= 600; ++bytes) {
        const uint32_t by_table = gaia::crc32c_by_table(seed, content + shift, bytes);
        if (gaia::crc32c_by_instruction(seed, content + shift, bytes) != by_table ||
            gaia::crc32c_update(seed, content + shift, bytes) != by_table) {
          std::printf("different: seed %u, shift %zu, %zu bytes\n", seed, shift, bytes);
          return 1;
        }
      }
    }
  }
  std::puts("equal");
  return 0;
}
