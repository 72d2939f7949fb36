// What one environment (the main thread or one worker thread) keeps for itself.
#ifndef GAIA_ADDON_DATA_H
#define GAIA_ADDON_DATA_H

#include "hash_level.h"
#include "hash_pool.h"

namespace gaia {

struct AddonData {
  const HashLevel* hash_level = HashLevel::best();
  HashPool hash_pool;
};

}  // namespace gaia

#endif
