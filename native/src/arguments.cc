#include "arguments.h"

#include <climits>
#include <cmath>
#include <cstdio>

namespace gaia {

namespace {

const char* kind_of(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
      return "a boolean";
    case napi_number:
      return "a number";
    case napi_string:
      return "a string";
    case napi_symbol:
      return "a symbol";
    case napi_function:
      return "a function";
    case napi_bigint:
      return "a bigint";
    default:
      return "another object";
  }
}

}  // namespace

std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char text[40];
  const bool whole = std::trunc(value) == value && std::fabs(value) < 1e18;
  std::snprintf(text, sizeof text, whole ? "%.0f" : "%.17g", value);
  return text;
}

std::string Arguments::describe(const char* name) const {
  return std::string("Argument ") + name + " of " + function_ + " ";
}

void Arguments::refuse_type(const char* name, const std::string& problem) const {
  throw Napi::TypeError::New(env(), describe(name) + problem);
}

void Arguments::refuse_range(const char* name, const std::string& problem) const {
  throw Napi::RangeError::New(env(), describe(name) + problem);
}

void Arguments::refuse_kind(size_t index, const char* name, const char* expected) const {
  refuse_type(name, std::string("must be ") + expected + ", not " + kind_of(info_[index]));
}

int Arguments::fd(size_t index, const char* name) const {
  return static_cast<int>(integer(index, name, 0, INT_MAX));
}

int64_t Arguments::integer(size_t index, const char* name, int64_t least, int64_t most) const {
  const Napi::Value value = info_[index];
  if (!value.IsNumber()) refuse_kind(index, name, "an integer");
  const double number = value.As<Napi::Number>().DoubleValue();
  // Bounds up to 2^53 are exact as doubles, and NaN fails the comparison.
  if (!(number >= static_cast<double>(least) && number <= static_cast<double>(most)) ||
      std::trunc(number) != number) {
    refuse_range(name, "must be an integer from " + std::to_string(least) + " to " + std::to_string(most) +
                           ", not " + number_text(number));
  }
  return static_cast<int64_t>(number);
}

double Arguments::number(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsNumber()) refuse_kind(index, name, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(number)) refuse_range(name, "must be finite, not " + number_text(number));
  return number;
}

bool Arguments::boolean(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsBoolean()) refuse_kind(index, name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string Arguments::text(size_t index, const char* name, size_t bytes_max) const {
  const Napi::Value value = info_[index];
  if (!value.IsString()) refuse_kind(index, name, "a string");
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.empty() || text.size() > bytes_max) {
    refuse_range(name, "must have 1 to " + std::to_string(bytes_max) + " bytes, not " +
                           std::to_string(text.size()) + (text.empty() ? "" : ": " + text));
  }
  if (text.find('\0') != std::string::npos) refuse_range(name, "must not contain a NUL character");
  return text;
}

Slice<uint8_t> Arguments::array_buffer(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsArrayBuffer()) refuse_kind(index, name, "an ArrayBuffer");
  const Napi::ArrayBuffer buffer = value.As<Napi::ArrayBuffer>();
  if (buffer.IsDetached()) refuse_type(name, "is a detached ArrayBuffer");
  void* data = nullptr;
  size_t bytes = 0;
  if (napi_get_arraybuffer_info(env(), value, &data, &bytes) != napi_ok) {
    refuse_kind(index, name, "an ArrayBuffer");
  }
  return {static_cast<uint8_t*>(data), bytes};
}

template <typename T>
Slice<T> Arguments::typed_array(size_t index, const char* name, napi_typedarray_type type,
                                const char* expected) const {
  const Napi::Value value = info_[index];
  if (!value.IsTypedArray()) refuse_kind(index, name, expected);
  napi_typedarray_type actual;
  size_t length = 0;
  void* data = nullptr;
  napi_value owner;
  if (napi_get_typedarray_info(env(), value, &actual, &length, &data, &owner, nullptr) != napi_ok ||
      actual != type) {
    refuse_type(name, std::string("must be ") + expected + ", not another typed array");
  }
  bool detached = false;
  if (napi_is_detached_arraybuffer(env(), owner, &detached) == napi_ok && detached) {
    refuse_type(name, "views a detached ArrayBuffer");
  }
  return {static_cast<T*>(data), length};
}

Slice<uint8_t> Arguments::uint8_array(size_t index, const char* name) const {
  return typed_array<uint8_t>(index, name, napi_uint8_array, "a Uint8Array");
}

Slice<int32_t> Arguments::int32_array(size_t index, const char* name) const {
  return typed_array<int32_t>(index, name, napi_int32_array, "an Int32Array");
}

Slice<uint32_t> Arguments::uint32_array(size_t index, const char* name) const {
  return typed_array<uint32_t>(index, name, napi_uint32_array, "a Uint32Array");
}

}  // namespace gaia
