// The hash functions of native/binding.ts.
#include <algorithm>

#include "addon_data.h"
#include "arguments.h"
#include "blake3_hash.h"
#include "exports.h"

namespace gaia {

namespace {

const HashLevel& level_of(Napi::Env env) { return *env.GetInstanceData<AddonData>()->hash_level; }

void check_out(const Arguments& arguments, const Slice<uint8_t>& out, size_t count) {
  if (out.length / kHashBytes < count) {
    arguments.refuse_range("out", "must have " + std::to_string(count * kHashBytes) + " bytes for " +
                                      std::to_string(count) + " hashes, not " + std::to_string(out.length));
  }
}

}  // namespace

void blake3_pages(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Pages");
  const Slice<uint8_t> memory = arguments.array_buffer(0, "memory");
  const Slice<uint32_t> pages = arguments.uint32_array(1, "pages");
  const auto count = static_cast<size_t>(arguments.integer(2, "count", 0, kIntegerMax));
  const Slice<uint8_t> out = arguments.uint8_array(3, "out");
  if (count > pages.length) {
    arguments.refuse_range("count", "must not pass the " + std::to_string(pages.length) +
                                        " page indexes: " + std::to_string(count));
  }
  check_out(arguments, out, count);

  const HashLevel& level = level_of(info.Env());
  const size_t memory_pages = memory.length / kHashPageBytes;
  for (size_t first = 0; first < count; first += kPageBatchMax) {
    const size_t batch = std::min(count - first, kPageBatchMax);
    const uint8_t* inputs[kPageBatchMax];
    for (size_t i = 0; i < batch; ++i) {
      // Read once, as the list may lie in memory that others write: what was checked is what is used.
      const uint32_t page = __atomic_load_n(pages.data + first + i, __ATOMIC_RELAXED);
      if (page >= memory_pages) {
        arguments.refuse_range("pages", "holds page " + std::to_string(page) + " at index " +
                                            std::to_string(first + i) + ", but the memory has " +
                                            std::to_string(memory_pages) + " pages");
      }
      inputs[i] = memory.data + size_t{page} * kHashPageBytes;
    }
    hash_page_batch(level, inputs, batch, out.data + first * kHashBytes);
  }
}

void blake3_parents(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Parents");
  const Slice<uint8_t> input = arguments.uint8_array(0, "input");
  const auto piece_bytes = static_cast<size_t>(arguments.integer(1, "pieceBytes", 1, kChunkBytes));
  const auto count = static_cast<size_t>(arguments.integer(2, "count", 0, kIntegerMax));
  const Slice<uint8_t> out = arguments.uint8_array(3, "out");
  if (input.length / piece_bytes < count) {
    arguments.refuse_range("input", "must have " + std::to_string(count) + " pieces of " +
                                        std::to_string(piece_bytes) + " bytes, but has only " +
                                        std::to_string(input.length) + " bytes");
  }
  check_out(arguments, out, count);
  hash_pieces(level_of(info.Env()), input.data, piece_bytes, count, out.data);
}

Napi::Value blake3(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3");
  const Slice<uint8_t> bytes = arguments.uint8_array(0, "bytes");
  Napi::Uint8Array hash = Napi::Uint8Array::New(info.Env(), kHashBytes);
  hash_bytes(level_of(info.Env()), bytes.data, bytes.length, hash.Data());
  return hash;
}

Napi::Value blake3_level(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "blake3Level");
  AddonData* const data = info.Env().GetInstanceData<AddonData>();
  if (!info[0].IsUndefined()) {
    const std::string name = arguments.text(0, "force", 16);
    const HashLevel* const level = HashLevel::find(name.c_str());
    if (level == nullptr) arguments.refuse_range("force", "must be a level, not '" + name + "'");
    if (!level->is_supported())
      arguments.refuse_range("force", "must be a level of this CPU, which lacks " + name);
    data->hash_level = level;
  }
  return Napi::String::New(info.Env(), data->hash_level->name());
}

}  // namespace gaia
