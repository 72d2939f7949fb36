// The BLAKE3 library's functions for each instruction set. Guarantees that no byte outside the inputs is
// read, which the library's assembly does not (see hash_level.cc).
#ifndef GAIA_HASH_LEVEL_H
#define GAIA_HASH_LEVEL_H

#include <cstddef>
#include <cstdint>

namespace gaia {

constexpr size_t kHashBytes = 32;
constexpr size_t kBlockBytes = 64;
// The lanes of AVX-512, the widest level. Lists of inputs and of hashes have room for a multiple of it.
constexpr size_t kLanesMax = 16;

// BLAKE3 specification, tables 1 and 3.
constexpr uint32_t kIv[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                             0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
constexpr uint8_t kChunkStart = 1 << 0;
constexpr uint8_t kChunkEnd = 1 << 1;
constexpr uint8_t kParent = 1 << 2;
constexpr uint8_t kRoot = 1 << 3;

// The flags of all blocks of an input, and those that its first and its last block have besides.
struct HashFlags {
  uint8_t all;
  uint8_t first;
  uint8_t last;
};

enum class Counter { kSame, kRising };

class HashLevel {
 public:
  // The fastest level that this CPU has.
  static const HashLevel* best();
  // The level of that name, or nullptr; the CPU may lack it.
  static const HashLevel* find(const char* name);

  const char* name() const { return name_; }
  bool is_supported() const { return is_supported_(); }

  // Hashes `count` inputs of `blocks` blocks side by side, with the same counter or one that rises from input
  // to input. `inputs` and `out` must have room for `count` rounded up to a multiple of kLanesMax: what comes
  // after the inputs and their hashes is overwritten.
  void hash_many(const uint8_t** inputs, size_t count, size_t blocks, uint64_t counter, Counter counting,
                 HashFlags flags, uint8_t* out) const;

  // One compression: `cv` becomes the next chaining value.
  void compress(uint32_t cv[8], const uint8_t block[kBlockBytes], size_t block_bytes, uint64_t counter,
                uint8_t flags) const {
    compress_(cv, block, static_cast<uint8_t>(block_bytes), counter, flags);
  }

 private:
  using HashMany = void (*)(const uint8_t* const* inputs, size_t input_count, size_t blocks,
                            const uint32_t key[8], uint64_t counter, bool increment_counter, uint8_t flags,
                            uint8_t flags_start, uint8_t flags_end, uint8_t* out);
  using Compress = void (*)(uint32_t cv[8], const uint8_t block[kBlockBytes], uint8_t block_bytes,
                            uint64_t counter, uint8_t flags);

  constexpr HashLevel(const char* name, bool (*is_supported)(), size_t lanes_filled, HashMany hash_many,
                      Compress compress)
      : name_(name),
        is_supported_(is_supported),
        lanes_filled_(lanes_filled),
        hash_many_(hash_many),
        compress_(compress) {}

  static const HashLevel kLevels[];
  static const size_t kLevelCount;

  const char* name_;
  bool (*is_supported_)();
  // More than one input is filled up to a multiple of this.
  size_t lanes_filled_;
  HashMany hash_many_;
  Compress compress_;
};

}  // namespace gaia

#endif
