// The hash functions of native/binding.ts.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <system_error>

#include "addon_data.h"
#include "arguments.h"
#include "blake3_hash.h"
#include "exports.h"
#include "system_error.h"

namespace gaia {

namespace {

// What a thread takes at once: enough to make the taking cheap, little enough that all end together.
constexpr size_t kPagesPerSlice = 2 * kPageBatchMax;
constexpr size_t kPiecesPerSlice = 8 * kLanesMax;

AddonData& data_of(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

size_t slices_of(size_t count, size_t per_slice) { return (count + per_slice - 1) / per_slice; }

void check_out(const Arguments& arguments, const Slice<uint8_t>& out, size_t count) {
  if (out.length / kHashBytes < count) {
    arguments.refuse_range("out", "must have " + std::to_string(count * kHashBytes) + " bytes for " +
                                      std::to_string(count) + " hashes, not " + std::to_string(out.length));
  }
}

void check_count(const Arguments& arguments, const char* list, size_t count, size_t length) {
  if (count > length) {
    arguments.refuse_range("count", "must not pass the " + std::to_string(length) + " " + list +
                                        " indexes: " + std::to_string(count));
  }
}

// Work over a list of indexes that must stay below a limit. An index is read once, as the list may lie in
// memory that others write: what was checked is what is used.
class IndexList {
 public:
  IndexList(const uint32_t* indexes, size_t limit) : indexes_(indexes), limit_(limit) {}

  // False, and noted, when the index is past the limit.
  bool take(size_t position, size_t* index) {
    *index = __atomic_load_n(indexes_ + position, __ATOMIC_RELAXED);
    if (*index < limit_) return true;
    size_t first = refused_.load(std::memory_order_relaxed);
    while (position < first && !refused_.compare_exchange_weak(first, position, std::memory_order_relaxed)) {
    }
    return false;
  }

  // The first position refused, or kNone.
  size_t refused() const { return refused_.load(std::memory_order_relaxed); }

  static constexpr size_t kNone = SIZE_MAX;

 private:
  const uint32_t* const indexes_;
  const size_t limit_;
  std::atomic<size_t> refused_{kNone};
};

struct PageWork {
  const HashLevel& level;
  const uint8_t* memory;
  IndexList pages;
  size_t count;
  uint8_t* out;

  void hash_slice(size_t slice) {
    const size_t end = std::min(count, (slice + 1) * kPagesPerSlice);
    for (size_t first = slice * kPagesPerSlice; first < end; first += kPageBatchMax) {
      const size_t batch = std::min(end - first, kPageBatchMax);
      const uint8_t* inputs[kPageBatchMax];
      for (size_t i = 0; i < batch; ++i) {
        size_t page;
        if (!pages.take(first + i, &page)) return;
        inputs[i] = memory + page * kHashPageBytes;
      }
      hash_page_batch(level, inputs, batch, out + first * kHashBytes);
    }
  }
};

// Pieces in a row, or those of a list, whose hashes then go to their own places.
struct PieceWork {
  const HashLevel& level;
  const uint8_t* input;
  size_t piece_bytes;
  IndexList* which;
  size_t count;
  uint8_t* out;

  void hash_slice(size_t slice) {
    const size_t end = std::min(count, (slice + 1) * kPiecesPerSlice);
    alignas(64) uint8_t hashes[kLanesMax * kHashBytes];
    for (size_t first = slice * kPiecesPerSlice; first < end; first += kLanesMax) {
      const size_t batch = std::min(end - first, kLanesMax);
      const uint8_t* inputs[kLanesMax];
      size_t places[kLanesMax];
      for (size_t i = 0; i < batch; ++i) {
        places[i] = first + i;
        if (which != nullptr && !which->take(first + i, &places[i])) return;
        inputs[i] = input + places[i] * piece_bytes;
      }
      hash_piece_batch(level, inputs, piece_bytes, batch, hashes);
      for (size_t i = 0; i < batch; ++i)
        std::memcpy(out + places[i] * kHashBytes, hashes + i * kHashBytes, kHashBytes);
    }
  }
};

template <typename Work>
void share_out(HashPool& pool, Work& work, size_t slices) {
  pool.run([](void* context, size_t slice) { static_cast<Work*>(context)->hash_slice(slice); }, &work,
           slices);
}

struct PieceArguments {
  Slice<uint8_t> input;
  size_t piece_bytes;
};

PieceArguments piece_arguments(const Arguments& arguments) {
  return {arguments.uint8_array(0, "input"),
          static_cast<size_t>(arguments.integer(1, "pieceBytes", 1, kChunkBytes))};
}

}  // namespace

void blake3_pages(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Pages");
  const Slice<uint8_t> memory = arguments.array_buffer(0, "memory");
  const Slice<uint32_t> pages = arguments.uint32_array(1, "pages");
  const auto count = static_cast<size_t>(arguments.integer(2, "count", 0, kIntegerMax));
  const Slice<uint8_t> out = arguments.uint8_array(3, "out");
  check_count(arguments, "page", count, pages.length);
  check_out(arguments, out, count);

  AddonData& data = data_of(info.Env());
  const size_t memory_pages = memory.length / kHashPageBytes;
  PageWork work = {*data.hash_level, memory.data, IndexList(pages.data, memory_pages), count, out.data};
  share_out(data.hash_pool, work, slices_of(count, kPagesPerSlice));
  const size_t refused = work.pages.refused();
  if (refused != IndexList::kNone) {
    arguments.refuse_range("pages", "holds page " + std::to_string(pages.data[refused]) + " at index " +
                                        std::to_string(refused) + ", but the memory has " +
                                        std::to_string(memory_pages) + " pages");
  }
}

void blake3_parents(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Parents");
  const auto [input, piece_bytes] = piece_arguments(arguments);
  const auto count = static_cast<size_t>(arguments.integer(2, "count", 0, kIntegerMax));
  const Slice<uint8_t> out = arguments.uint8_array(3, "out");
  if (input.length / piece_bytes < count) {
    arguments.refuse_range("input", "must have " + std::to_string(count) + " pieces of " +
                                        std::to_string(piece_bytes) + " bytes, but has only " +
                                        std::to_string(input.length) + " bytes");
  }
  check_out(arguments, out, count);
  AddonData& data = data_of(info.Env());
  PieceWork work = {*data.hash_level, input.data, piece_bytes, nullptr, count, out.data};
  share_out(data.hash_pool, work, slices_of(count, kPiecesPerSlice));
}

void blake3_parents_at(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3ParentsAt");
  const auto [input, piece_bytes] = piece_arguments(arguments);
  const Slice<uint32_t> which = arguments.uint32_array(2, "which");
  const auto count = static_cast<size_t>(arguments.integer(3, "count", 0, kIntegerMax));
  const Slice<uint8_t> out = arguments.uint8_array(4, "out");
  check_count(arguments, "piece", count, which.length);
  const size_t limit = std::min(input.length / piece_bytes, out.length / kHashBytes);
  IndexList list(which.data, limit);
  AddonData& data = data_of(info.Env());
  PieceWork work = {*data.hash_level, input.data, piece_bytes, &list, count, out.data};
  share_out(data.hash_pool, work, slices_of(count, kPiecesPerSlice));
  const size_t refused = list.refused();
  if (refused != IndexList::kNone) {
    arguments.refuse_range("which", "holds piece " + std::to_string(which.data[refused]) + " at index " +
                                        std::to_string(refused) + ", but input and out have " +
                                        std::to_string(limit) + " pieces");
  }
}

Napi::Value blake3(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3");
  const Slice<uint8_t> bytes = arguments.uint8_array(0, "bytes");
  Napi::Uint8Array hash = Napi::Uint8Array::New(info.Env(), kHashBytes);
  hash_bytes(*data_of(info.Env()).hash_level, bytes.data, bytes.length, hash.Data());
  return hash;
}

Napi::Value blake3_level(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Level");
  AddonData& data = data_of(info.Env());
  if (!info[0].IsUndefined()) {
    const std::string name = arguments.text(0, "force", 16);
    const HashLevel* const level = HashLevel::find(name.c_str());
    if (level == nullptr) arguments.refuse_range("force", "must be a level, not '" + name + "'");
    if (!level->is_supported())
      arguments.refuse_range("force", "must be a level of this CPU, which lacks " + name);
    data.hash_level = level;
  }
  return Napi::String::New(info.Env(), data.hash_level->name());
}

Napi::Value blake3_threads(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Threads");
  HashPool& pool = data_of(info.Env()).hash_pool;
  if (!info[0].IsUndefined()) {
    const auto count = static_cast<size_t>(arguments.integer(0, "count", 1, kHashThreadsMax));
    try {
      pool.resize(count);
    } catch (const std::system_error& error) {
      throw_system_error(info.Env(), error.code().value(), "pthread_create",
                         "Cannot start " + std::to_string(count - 1) + " threads for hashing");
    }
  }
  return Napi::Number::New(info.Env(), static_cast<double>(pool.threads()));
}

}  // namespace gaia
