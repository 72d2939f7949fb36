#include "hash_pool.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>

namespace gaia {

namespace {

// Below that, waking somebody takes longer than doing it oneself.
constexpr size_t kSlicesWorthWaking = 8;

}  // namespace

void HashPool::resize(size_t threads) {
  if (threads == this->threads()) return;
  end();
  is_ending_ = false;
  // Signals are for Node's own threads: helpers inherit a mask that lets none through.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    helpers_.reserve(threads - 1);
    while (this->threads() < threads) {
      // From now on: work that begins before the thread does is its work, too.
      helpers_.emplace_back([this, seen = generation_] { help(seen); });
    }
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    end();
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void HashPool::run(void (*work)(void* context, size_t slice), void* context, size_t slices) {
  if (helpers_.empty() || slices < kSlicesWorthWaking) {
    for (size_t slice = 0; slice < slices; ++slice) work(context, slice);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = work;
    context_ = context;
    slices_ = slices;
    next_.store(0, std::memory_order_relaxed);
    is_open_ = true;
    ++generation_;
  }
  wake_.notify_all();
  work_off();
  std::unique_lock<std::mutex> lock(mutex_);
  is_open_ = false;
  done_.wait(lock, [this] { return joined_ == 0; });
}

void HashPool::work_off() {
  for (size_t slice; (slice = next_.fetch_add(1, std::memory_order_relaxed)) < slices_;)
    work_(context_, slice);
}

void HashPool::help(uint64_t seen) {
  pthread_setname_np(pthread_self(), "gaia-hash");
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return is_ending_ || generation_ != seen; });
    if (is_ending_) return;
    seen = generation_;
    if (!is_open_) continue;
    ++joined_;
    lock.unlock();
    work_off();
    lock.lock();
    if (--joined_ == 0) done_.notify_one();
  }
}

void HashPool::end() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
  helpers_.clear();
}

}  // namespace gaia
