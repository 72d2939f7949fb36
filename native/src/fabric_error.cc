#include "fabric_error.h"

#include <rdma/fi_errno.h>

#include <cstring>

namespace gaia {

FabricError::FabricError(int error, const char* call, const std::string& what)
    : std::runtime_error(what + ": " + call + " says " + fi_strerror(error)), error_(error), call_(call) {}

std::string FabricError::code() const {
  const char* name = error_ < FI_ERRNO_OFFSET ? strerrorname_np(error_) : nullptr;
  return name != nullptr ? name : "FI_" + std::to_string(error_);
}

}  // namespace gaia
