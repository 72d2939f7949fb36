#include "fabric_memory.h"

#include <rdma/fi_errno.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <cerrno>
#include <string>

#include "fabric_error.h"

namespace gaia {

namespace {

// A key that the application chooses is random: who does not know it cannot write, and a key of old memory is
// never that of new memory.
uint64_t random_key(size_t key_bytes) {
  uint64_t key = 0;
  const ssize_t got = getrandom(&key, sizeof key, 0);
  if (got != sizeof key) throw FabricError(errno, "getrandom", "Cannot choose a memory key");
  return key_bytes >= sizeof key ? key : key & ((uint64_t{1} << (8 * key_bytes)) - 1);
}

}  // namespace

FabricPages::FabricPages(size_t bytes) : bytes_(bytes) {
  void* const base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    throw FabricError(errno, "mmap", "Cannot allocate " + std::to_string(bytes) + " bytes");
  }
  base_ = static_cast<uint8_t*>(base);
}

FabricPages::~FabricPages() { munmap(base_, bytes_); }

FabricMemory::FabricMemory(fid_domain* domain, const fi_info* info, size_t bytes)
    : pages_(std::make_shared<FabricPages>(bytes)) {
  const int mode = info->domain_attr->mr_mode;
  const uint64_t wanted = (mode & FI_MR_PROV_KEY) != 0 ? 0 : random_key(info->domain_attr->mr_key_size);
  const int status = fi_mr_reg(domain, pages_->base(), bytes, FI_WRITE | FI_REMOTE_WRITE | FI_SEND | FI_RECV,
                               0, wanted, 0, &mr_, nullptr);
  if (status != 0) {
    throw FabricError(-status, "fi_mr_reg", "Cannot register " + std::to_string(bytes) + " bytes of memory");
  }
  remote_base_ = (mode & FI_MR_VIRT_ADDR) != 0 ? reinterpret_cast<uintptr_t>(pages_->base()) : 0;
}

FabricMemory::~FabricMemory() { fi_close(&mr_->fid); }

}  // namespace gaia
