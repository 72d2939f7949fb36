#include "system_error.h"

#include <cstring>

namespace gaia {

void throw_system_error(Napi::Env env, int error_number, const char* syscall, const std::string& what) {
  const char* name = strerrorname_np(error_number);
  const std::string code = name != nullptr ? name : "E" + std::to_string(error_number);
  const char* description = strerrordesc_np(error_number);
  Napi::Error error = Napi::Error::New(
      env, what + ": " + code + ", " + (description != nullptr ? description : "unknown error"));
  error.Set("code", Napi::String::New(env, code));
  error.Set("syscall", Napi::String::New(env, syscall));
  error.Set("errno", Napi::Number::New(env, -error_number));
  throw error;
}

}  // namespace gaia
