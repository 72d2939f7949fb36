// A libfabric call that failed, with what was attempted.
#ifndef GAIA_FABRIC_ERROR_H
#define GAIA_FABRIC_ERROR_H

#include <stdexcept>
#include <string>

namespace gaia {

class FabricError : public std::runtime_error {
 public:
  // `error` is positive: an errno, or one of libfabric's own above 255. `what` begins the message.
  FabricError(int error, const char* call, const std::string& what);

  // "ENODATA", "FI_ETRUNC".
  std::string code() const;
  int error() const { return error_; }
  const char* call() const { return call_; }

 private:
  int error_;
  const char* call_;
};

}  // namespace gaia

#endif
