// crc32c, crc32cAt and copyBytes of native/binding.ts.
#include <cstring>

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

namespace {

// `length` bytes from `at` on, both as arguments say.
Slice<uint8_t> part(const Arguments& arguments, size_t bytes, const char* bytes_name, size_t at,
                    const char* at_name, int64_t length) {
  const Slice<uint8_t> all = arguments.uint8_array(bytes, bytes_name);
  const int64_t offset = arguments.integer(at, at_name, 0, kIntegerMax);
  const auto held = static_cast<int64_t>(all.length);
  if (offset > held || length > held - offset) {
    arguments.refuse_range("length", "passes the end of " + std::string(bytes_name) + ": " +
                                         std::to_string(length) + " bytes from " + std::to_string(offset) +
                                         " of " + std::to_string(held));
  }
  return {all.data + offset, static_cast<size_t>(length)};
}

}  // namespace

Napi::Value crc32c_at(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "crc32cAt");
  const int64_t length = arguments.integer(2, "length", 0, kIntegerMax);
  const Slice<uint8_t> bytes = part(arguments, 0, "bytes", 1, "at", length);
  const auto seed = static_cast<uint32_t>(arguments.integer(3, "seed", INT32_MIN, INT32_MAX));
  // Signed: JavaScript keeps such a number without allocating memory for it.
  const auto sum = static_cast<int32_t>(crc32c_update(seed, bytes.data, bytes.length));
  napi_value result = nullptr;
  napi_create_int32(info.Env(), sum, &result);
  return Napi::Value(info.Env(), result);
}

void copy_bytes(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "copyBytes");
  const int64_t length = arguments.integer(4, "length", 0, kIntegerMax);
  const Slice<uint8_t> target = part(arguments, 0, "target", 1, "targetAt", length);
  const Slice<uint8_t> source = part(arguments, 2, "source", 3, "sourceAt", length);
  if (length > 0) std::memmove(target.data, source.data, target.length);
}

}  // namespace gaia
