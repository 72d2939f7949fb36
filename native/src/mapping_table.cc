#include "mapping_table.h"

#include <sys/mman.h>

namespace gaia {

MappingTable& MappingTable::instance() {
  static MappingTable table;
  return table;
}

uintptr_t MappingTable::add(void* base, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  mappings_[++last_number_] = {base, bytes};
  return last_number_;
}

uintptr_t MappingTable::find(const void* base) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [number, mapping] : mappings_) {
    if (mapping.base == base) return number;
  }
  return 0;
}

void MappingTable::end(uintptr_t number) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = mappings_.find(number);
  if (found == mappings_.end()) return;
  munmap(found->second.base, found->second.bytes);
  mappings_.erase(found);
}

}  // namespace gaia
