// What one environment (the main thread or one worker thread) keeps for itself.
#ifndef GAIA_ADDON_DATA_H
#define GAIA_ADDON_DATA_H

#include <map>
#include <memory>

#include "hash_level.h"
#include "hash_pool.h"
#include "log_writer.h"

namespace gaia {

struct AddonData {
  const HashLevel* hash_level = HashLevel::best();
  HashPool hash_pool;
  std::map<int, std::unique_ptr<LogWriter>> log_writers;
  int next_log_writer = 1;
};

}  // namespace gaia

#endif
