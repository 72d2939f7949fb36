// Memory that a fabric may write and read: pages of our own with a registration on them. Guarantees that the
// pages outlive both the registration and every view of them, and that the registration outlives every put
// that reads from it.
#ifndef GAIA_FABRIC_MEMORY_H
#define GAIA_FABRIC_MEMORY_H

#include <rdma/fi_domain.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace gaia {

// Zeroed anonymous pages.
class FabricPages {
 public:
  explicit FabricPages(size_t bytes);
  FabricPages(const FabricPages&) = delete;
  FabricPages& operator=(const FabricPages&) = delete;
  ~FabricPages();

  uint8_t* base() const { return base_; }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* base_;
  size_t bytes_;
};

class FabricMemory {
 public:
  // LIFETIME: `domain` must stay open as long as this.
  FabricMemory(fid_domain* domain, const fi_info* info, size_t bytes);
  FabricMemory(const FabricMemory&) = delete;
  FabricMemory& operator=(const FabricMemory&) = delete;
  ~FabricMemory();

  const std::shared_ptr<FabricPages>& pages() const { return pages_; }
  void* descriptor() const { return fi_mr_desc(mr_); }
  // What a peer needs to write here: the key, and the address of the first byte as the provider counts.
  uint64_t key() const { return fi_mr_key(mr_); }
  uint64_t base() const { return remote_base_; }

 private:
  std::shared_ptr<FabricPages> pages_;
  fid_mr* mr_ = nullptr;
  uint64_t remote_base_;
};

}  // namespace gaia

#endif
