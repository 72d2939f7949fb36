// Checked access to a call's arguments: what is not as promised throws a TypeError or a RangeError that
// names the argument, before anything is done.
#ifndef GAIA_ARGUMENTS_H
#define GAIA_ARGUMENTS_H

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace gaia {

constexpr int64_t kIntegerMax = (int64_t{1} << 53) - 1;  // Number.MAX_SAFE_INTEGER

// LIFETIME: valid during the call; the argument keeps the memory alive.
template <typename T>
struct Slice {
  T* data;
  size_t length;
};

class Arguments {
 public:
  Arguments(const Napi::CallbackInfo& info, const char* function) : info_(info), function_(function) {}

  Napi::Env env() const { return info_.Env(); }

  int fd(size_t index, const char* name) const;
  int64_t integer(size_t index, const char* name, int64_t least, int64_t most) const;
  // Any finite number.
  double number(size_t index, const char* name) const;
  bool boolean(size_t index, const char* name) const;
  // 1 to `bytes_max` bytes of UTF-8 without NUL.
  std::string text(size_t index, const char* name, size_t bytes_max) const;
  // The bytes of an attached ArrayBuffer.
  Slice<uint8_t> array_buffer(size_t index, const char* name) const;
  Slice<uint8_t> uint8_array(size_t index, const char* name) const;
  Slice<int32_t> int32_array(size_t index, const char* name) const;
  Slice<uint32_t> uint32_array(size_t index, const char* name) const;

  // For checks that only the function itself can make: "Argument NAME of FUNCTION PROBLEM".
  [[noreturn]] void refuse_type(const char* name, const std::string& problem) const;
  [[noreturn]] void refuse_range(const char* name, const std::string& problem) const;

 private:
  template <typename T>
  Slice<T> typed_array(size_t index, const char* name, napi_typedarray_type type, const char* expected) const;
  [[noreturn]] void refuse_kind(size_t index, const char* name, const char* expected) const;
  std::string describe(const char* name) const;

  const Napi::CallbackInfo& info_;
  const char* function_;
};

// A number as a person writes it: 4096, 0.5, NaN.
std::string number_text(double value);

}  // namespace gaia

#endif
