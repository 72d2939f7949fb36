// Threads that share out the slices of one piece of work. Kept from one piece to the next, asleep in between.
//
// THREAD: a pool belongs to one environment, whose thread calls everything here and takes part in the work.
#ifndef GAIA_HASH_POOL_H
#define GAIA_HASH_POOL_H

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace gaia {

constexpr size_t kHashThreadsMax = 64;

class HashPool {
 public:
  HashPool() = default;
  HashPool(const HashPool&) = delete;
  HashPool& operator=(const HashPool&) = delete;
  ~HashPool() { end(); }

  // Threads that work, the caller's included: 1 to kHashThreadsMax. Throws std::system_error when the system
  // grants no more; then it is 1.
  void resize(size_t threads);
  size_t threads() const { return helpers_.size() + 1; }

  // Calls work(context, slice) once for each slice from 0 to slices - 1, on any thread and in any order, and
  // returns when all are done. `work` must not throw and must not touch JavaScript.
  void run(void (*work)(void* context, size_t slice), void* context, size_t slices);

 private:
  // A helper's life; `seen`: the pieces of work before it.
  void help(uint64_t seen);
  void work_off();
  void end();

  std::vector<std::thread> helpers_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  // Under mutex_: pieces of work so far, whether the last one still takes helpers, and how many are at it.
  // Only those are waited for: a helper that wakes up too late finds the work closed.
  uint64_t generation_ = 0;
  bool is_open_ = false;
  size_t joined_ = 0;
  bool is_ending_ = false;

  // Written before a piece of work is opened, read by those who joined it.
  void (*work_)(void*, size_t) = nullptr;
  void* context_ = nullptr;
  size_t slices_ = 0;
  std::atomic<size_t> next_{0};
};

}  // namespace gaia

#endif
