// Failed system calls as JavaScript errors.
#ifndef GAIA_SYSTEM_ERROR_H
#define GAIA_SYSTEM_ERROR_H

#include <napi.h>

#include <string>

namespace gaia {

// Throws an Error with `code` (the errno's name), `syscall` and `errno` (negative), as Node's own have them.
// `what` begins the message and says what was attempted: "Cannot open the tap device gaia0".
[[noreturn]] void throw_system_error(Napi::Env env, int error_number, const char* syscall,
                                     const std::string& what);

}  // namespace gaia

#endif
