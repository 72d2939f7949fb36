// The memory that memoryMap has mapped. Guarantees that each mapping ends exactly once, whoever ends it
// first: memoryUnmap, or the finalizer of its buffer, which Node may call much later, or not at all when a
// worker thread is terminated. Hence numbers, never used twice, and not pointers.
#ifndef GAIA_MAPPING_TABLE_H
#define GAIA_MAPPING_TABLE_H

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace gaia {

// THREAD: one for the process, as the kernel's table of mappings is; every access takes the mutex.
class MappingTable {
 public:
  static MappingTable& instance();

  // Takes over a mapping; gives its number.
  uintptr_t add(void* base, size_t bytes);
  // The number of the live mapping at `base`, or 0.
  uintptr_t find(const void* base);
  // Unmaps; does nothing when the mapping has ended before.
  void end(uintptr_t number);

 private:
  struct Mapping {
    void* base;
    size_t bytes;
  };

  std::mutex mutex_;
  uintptr_t last_number_ = 0;
  std::unordered_map<uintptr_t, Mapping> mappings_;
};

}  // namespace gaia

#endif
