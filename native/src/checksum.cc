// crc32c of native/binding.ts.
#include "arguments.h"
#include "crc32c.h"
#include "exports.h"

namespace gaia {

Napi::Value crc32c(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "crc32c");
  const Slice<uint8_t> bytes = arguments.uint8_array(0, "bytes");
  const auto seed = static_cast<uint32_t>(arguments.integer(1, "seed", 0, UINT32_MAX));
  return Napi::Number::New(info.Env(), crc32c_update(seed, bytes.data, bytes.length));
}

}  // namespace gaia
