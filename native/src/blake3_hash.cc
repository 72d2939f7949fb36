#include "blake3_hash.h"

#include <algorithm>
#include <cstring>

namespace gaia {

namespace {

constexpr size_t kChunksPerPage = kHashPageBytes / kChunkBytes;
constexpr size_t kBlocksPerChunk = kChunkBytes / kBlockBytes;
static_assert(kChunksPerPage == 4, "hash_page_batch has two levels of parents");
// Chunks whose tree is built level by level, with full lanes for most of it.
constexpr size_t kSubtreeChunksMax = 256;

constexpr HashFlags kChunkFlags = {0, kChunkStart, kChunkEnd};
constexpr HashFlags kParentFlags = {kParent, 0, 0};

// BLAKE3's words are little-endian in memory, whatever the CPU's are.
void store_words(uint8_t* out, const uint32_t words[8]) {
  for (size_t i = 0; i < kHashBytes; ++i) out[i] = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
}

void load_words(uint32_t words[8], const uint8_t* in) {
  for (size_t i = 0; i < 8; ++i) words[i] = 0;
  for (size_t i = 0; i < kHashBytes; ++i) words[i / 4] |= static_cast<uint32_t>(in[i]) << (8 * (i % 4));
}

// The last block of a chunk, 0 to kBlockBytes long; `cv` is the chaining value of those before it.
void finish_chunk(const HashLevel& level, uint32_t cv[8], const uint8_t* tail, size_t tail_bytes,
                  uint64_t counter, uint8_t flags, uint8_t* out) {
  uint8_t block[kBlockBytes] = {};
  if (tail_bytes > 0) std::memcpy(block, tail, tail_bytes);
  level.compress(cv, block, tail_bytes, counter, flags | kChunkEnd);
  store_words(out, cv);
}

// One chunk of at most kChunkBytes; `root` is kRoot when it is all there is, else 0.
void hash_chunk(const HashLevel& level, const uint8_t* input, size_t bytes, uint64_t counter, uint8_t root,
                uint8_t* out) {
  uint32_t cv[8];
  std::memcpy(cv, kIv, sizeof cv);
  uint8_t start = kChunkStart;
  for (; bytes > kBlockBytes; input += kBlockBytes, bytes -= kBlockBytes) {
    level.compress(cv, input, kBlockBytes, counter, start);
    start = 0;
  }
  finish_chunk(level, cv, input, bytes, counter, static_cast<uint8_t>(start | root), out);
}

// The parent of the two hashes that lie in a row at `pair`.
void hash_parent(const HashLevel& level, const uint8_t* pair, uint8_t root, uint8_t* out) {
  uint32_t cv[8];
  std::memcpy(cv, kIv, sizeof cv);
  level.compress(cv, pair, kBlockBytes, 0, kParent | root);
  store_words(out, cv);
}

// The parents of `pairs` pairs in a row, written over them from the front.
void hash_parents_in_place(const HashLevel& level, uint8_t* cvs, size_t pairs) {
  const uint8_t* inputs[kLanesMax];
  alignas(64) uint8_t parents[kLanesMax * kHashBytes];
  for (size_t first = 0; first < pairs; first += kLanesMax) {
    const size_t batch = std::min(pairs - first, kLanesMax);
    for (size_t i = 0; i < batch; ++i) inputs[i] = cvs + (first + i) * 2 * kHashBytes;
    level.hash_many(inputs, batch, 1, 0, Counter::kSame, kParentFlags, parents);
    std::memcpy(cvs + first * kHashBytes, parents, batch * kHashBytes);
  }
}

// The tree above 2 to kSubtreeChunksMax chunks, of which the last may be short.
void hash_small_subtree(const HashLevel& level, const uint8_t* input, size_t bytes, uint64_t first_chunk,
                        uint8_t root, uint8_t* out) {
  alignas(64) uint8_t cvs[(kSubtreeChunksMax + kLanesMax) * kHashBytes];
  const size_t whole = bytes / kChunkBytes;
  size_t count = whole;
  for (size_t first = 0; first < whole; first += kLanesMax) {
    const size_t batch = std::min(whole - first, kLanesMax);
    const uint8_t* inputs[kLanesMax];
    for (size_t i = 0; i < batch; ++i) inputs[i] = input + (first + i) * kChunkBytes;
    level.hash_many(inputs, batch, kBlocksPerChunk, first_chunk + first, Counter::kRising, kChunkFlags,
                    cvs + first * kHashBytes);
  }
  if (bytes % kChunkBytes != 0) {
    hash_chunk(level, input + whole * kChunkBytes, bytes % kChunkBytes, first_chunk + whole, 0,
               cvs + whole * kHashBytes);
    count += 1;
  }
  while (count > 2) {
    const size_t pairs = count / 2;
    const bool is_odd = count % 2 != 0;
    hash_parents_in_place(level, cvs, pairs);
    // Whoever has no neighbour moves up unchanged.
    if (is_odd) std::memcpy(cvs + pairs * kHashBytes, cvs + (count - 1) * kHashBytes, kHashBytes);
    count = pairs + (is_odd ? 1 : 0);
  }
  hash_parent(level, cvs, root, out);
}

void hash_subtree(const HashLevel& level, const uint8_t* input, size_t bytes, uint64_t first_chunk,
                  uint8_t root, uint8_t* out) {
  if (bytes <= kChunkBytes) {
    hash_chunk(level, input, bytes, first_chunk, root, out);
    return;
  }
  if (bytes <= kSubtreeChunksMax * kChunkBytes) {
    hash_small_subtree(level, input, bytes, first_chunk, root, out);
    return;
  }
  // The left side has the most chunks that a power of two allows and leave something for the right.
  size_t left_chunks = kSubtreeChunksMax;
  while (left_chunks * 2 * kChunkBytes < bytes) left_chunks *= 2;
  uint8_t pair[2 * kHashBytes];
  const size_t left_bytes = left_chunks * kChunkBytes;
  hash_subtree(level, input, left_bytes, first_chunk, 0, pair);
  hash_subtree(level, input + left_bytes, bytes - left_bytes, first_chunk + left_chunks, 0,
               pair + kHashBytes);
  hash_parent(level, pair, root, out);
}

}  // namespace

void hash_page_batch(const HashLevel& level, const uint8_t* const* pages, size_t count, uint8_t* out) {
  alignas(64) uint8_t hashes[kPageBatchMax * kHashBytes];
  // [page][chunk]: so the four of a page are the inputs of its two parents, as they stand.
  alignas(64) uint8_t cvs[kPageBatchMax][kChunksPerPage][kHashBytes];
  alignas(64) uint8_t parent_cvs[kPageBatchMax][2][kHashBytes];
  const uint8_t* inputs[2 * kPageBatchMax];

  for (size_t chunk = 0; chunk < kChunksPerPage; ++chunk) {
    for (size_t i = 0; i < count; ++i) inputs[i] = pages[i] + chunk * kChunkBytes;
    level.hash_many(inputs, count, kBlocksPerChunk, chunk, Counter::kSame, kChunkFlags, hashes);
    for (size_t i = 0; i < count; ++i) std::memcpy(cvs[i][chunk], hashes + i * kHashBytes, kHashBytes);
  }
  for (size_t i = 0; i < count; ++i) {
    inputs[2 * i] = cvs[i][0];
    inputs[2 * i + 1] = cvs[i][2];
  }
  level.hash_many(inputs, 2 * count, 1, 0, Counter::kSame, kParentFlags, parent_cvs[0][0]);
  for (size_t i = 0; i < count; ++i) inputs[i] = parent_cvs[i][0];
  level.hash_many(inputs, count, 1, 0, Counter::kSame, {kParent | kRoot, 0, 0}, hashes);
  std::memcpy(out, hashes, count * kHashBytes);
}

void hash_piece_batch(const HashLevel& level, const uint8_t** inputs, size_t piece_bytes, size_t count,
                      uint8_t* hashes) {
  const size_t tail_bytes = piece_bytes % kBlockBytes;
  const size_t blocks = piece_bytes / kBlockBytes;
  // hash_many knows whole blocks only: a short last one is done piece by piece afterwards.
  const HashFlags flags = {0, kChunkStart, static_cast<uint8_t>(tail_bytes == 0 ? kChunkEnd | kRoot : 0)};
  if (blocks > 0) level.hash_many(inputs, count, blocks, 0, Counter::kSame, flags, hashes);
  for (size_t i = 0; i < count && tail_bytes > 0; ++i) {
    uint32_t cv[8];
    if (blocks > 0) {
      load_words(cv, hashes + i * kHashBytes);
    } else {
      std::memcpy(cv, kIv, sizeof cv);
    }
    finish_chunk(level, cv, inputs[i] + blocks * kBlockBytes, tail_bytes, 0,
                 static_cast<uint8_t>(kRoot | (blocks == 0 ? kChunkStart : 0)), hashes + i * kHashBytes);
  }
}

void hash_bytes(const HashLevel& level, const uint8_t* input, size_t bytes, uint8_t* out) {
  hash_subtree(level, input, bytes, 0, kRoot, out);
}

}  // namespace gaia
