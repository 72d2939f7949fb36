// The few functions of libfabric that are symbols (all others go through tables of pointers), forwarded to
// the library once it is open.
//
// It is opened by hand and not linked, because Debian's build brings libinfinipath along. That library's
// constructor takes over SIGTERM, SIGINT, SIGSEGV and others for a handler of its own, which writes a
// backtrace into the working directory and exits: no signal handler of Node would ever run again.
#include "fabric_library.h"

#include <dlfcn.h>
#include <rdma/fabric.h>
#include <rdma/fi_errno.h>
#include <signal.h>

#include <array>
#include <cstring>
#include <mutex>
#include <string>

#include "fabric_error.h"

namespace gaia {

namespace {

constexpr const char* kLibrary = "libfabric.so.1";
constexpr int kSignalMost = 31;

struct Functions {
  decltype(&::fi_getinfo) getinfo;
  decltype(&::fi_freeinfo) freeinfo;
  decltype(&::fi_dupinfo) dupinfo;
  decltype(&::fi_fabric) fabric;
  decltype(&::fi_strerror) strerror;
};

// THREAD: written under `loading` once, read only after.
Functions functions;
bool loaded = false;
std::mutex loading;

// Keeps what signals do, whatever a constructor changes meanwhile.
class KeptSignals {
 public:
  KeptSignals() {
    for (int signal = 1; signal <= kSignalMost; signal++)
      known_[signal] = sigaction(signal, nullptr, &actions_[signal]) == 0;
  }
  ~KeptSignals() {
    for (int signal = 1; signal <= kSignalMost; signal++) {
      if (known_[signal] && signal != SIGKILL && signal != SIGSTOP)
        sigaction(signal, &actions_[signal], nullptr);
    }
  }

 private:
  std::array<struct sigaction, kSignalMost + 1> actions_;
  std::array<bool, kSignalMost + 1> known_;
};

template <typename Function>
void find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) {
    dlclose(library);
    throw FabricError(ENOSYS, "dlsym", std::string(kLibrary) + " has no " + name);
  }
}

}  // namespace

void load_fabric_library() {
  const std::lock_guard<std::mutex> lock(loading);
  if (loaded) return;
  const KeptSignals kept;
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw FabricError(ENOENT, "dlopen", dlerror());
  find(library, "fi_getinfo", &functions.getinfo);
  find(library, "fi_freeinfo", &functions.freeinfo);
  find(library, "fi_dupinfo", &functions.dupinfo);
  find(library, "fi_fabric", &functions.fabric);
  find(library, "fi_strerror", &functions.strerror);
  loaded = true;
}

}  // namespace gaia

extern "C" {

int fi_getinfo(uint32_t version, const char* node, const char* service, uint64_t flags, const fi_info* hints,
               fi_info** info) {
  return gaia::functions.getinfo(version, node, service, flags, hints, info);
}

void fi_freeinfo(fi_info* info) { gaia::functions.freeinfo(info); }

fi_info* fi_dupinfo(const fi_info* info) { return gaia::functions.dupinfo(info); }

int fi_fabric(fi_fabric_attr* attr, fid_fabric** fabric, void* context) {
  return gaia::functions.fabric(attr, fabric, context);
}

const char* fi_strerror(int error) {
  return gaia::functions.strerror != nullptr ? gaia::functions.strerror(error) : strerrordesc_np(error);
}
}
