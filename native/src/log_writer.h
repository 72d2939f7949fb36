// The durable log's writer: a thread that puts bytes into files and syncs them, in groups. It decides
// nothing: which file, where in it and what, comes from TypeScript; so does what a failure means.
//
//   owner's thread                     writer's thread
//     write(): copy into the ring,       take all that waits, pwrite each piece that lies in one row,
//     queue where it goes                fdatasync every file written since its last one,
//                                        publish how many writes are durable, ring the eventfd
//
// Guarantees: the words say "durable" for a write only after a fdatasync that began behind it has succeeded.
// After a failed pwrite or fdatasync nothing is written, synced or published any more: the kernel may have
// dropped the pages it could not write, so that a second fdatasync would succeed and mean nothing.
#ifndef GAIA_LOG_WRITER_H
#define GAIA_LOG_WRITER_H

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "scoped_fd.h"

namespace gaia {

// What the threads tell TypeScript, which reads it as an Int32Array with Atomics.load: see native/binding.ts.
struct LogWriterWords {
  // Writes that are durable, modulo 2^32.
  std::atomic<int32_t> durable{0};
  // errno of the failure that stopped the writer, 0 while there is none; stored after `failed_call`.
  std::atomic<int32_t> failed_errno{0};
  // 1: pwrite, 2: fdatasync.
  std::atomic<int32_t> failed_call{0};
  // Prepared files asked for that have come to an end, modulo 2^32; stored after the two below.
  std::atomic<int32_t> prepares_ended{0};
  // errno of the newest of them, or 0.
  std::atomic<int32_t> prepare_errno{0};
  // Its descriptor, which from then on is TypeScript's, or -1.
  std::atomic<int32_t> prepared_fd{-1};
  // Group commits, modulo 2^32.
  std::atomic<int32_t> groups{0};
  std::atomic<int32_t> reserved{0};
};
static_assert(sizeof(LogWriterWords) == 32, "the words are an Int32Array of 8");
static_assert(std::atomic<int32_t>::is_always_lock_free);

class LogWriter {
 public:
  static constexpr size_t kQueueMax = 8192;

  // Throws std::system_error when the eventfd, the ring or the thread cannot be had.
  explicit LogWriter(size_t ring_bytes);
  // Finishes what is queued, unless it has failed.
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // THREAD: the owner's, as is all below. Copies `length` bytes and queues them for `offset` of `fd`, which
  // stays open until they are durable. Not `sync`: they may wait for the next write that is. False: no room
  // now.
  bool write(int fd, int64_t offset, const uint8_t* bytes, size_t length, bool sync);
  // Makes a file of `bytes` that has its place on the disk, `head` and then zeros, behind the owner's back;
  // one at a time (false: one is under way). A file of this name is not touched: EEXIST.
  bool prepare(const std::string& path, int64_t bytes, std::vector<uint8_t> head);

  size_t ring_bytes() const { return ring_bytes_; }
  int event_fd() const { return event_fd_.get(); }
  // LIFETIME: shared with the buffers that TypeScript holds, which may outlive the writer.
  const std::shared_ptr<LogWriterWords>& words() const { return words_; }

 private:
  struct Piece {
    int fd;
    int64_t offset;
    size_t at;
    size_t length;
    // Bytes of the ring that are free again behind it; more than `length` where the ring's end was passed
    // over.
    size_t taken;
    bool sync;
  };

  void run();
  bool write_out(size_t from, size_t to);
  bool sync_dirty();
  void fail(int call, int error_number);
  void ring_event() const;
  const Piece& piece(size_t number) const { return queue_[number % kQueueMax]; }

  const std::shared_ptr<LogWriterWords> words_ = std::make_shared<LogWriterWords>();
  const size_t ring_bytes_;
  const ScopedFd event_fd_;
  struct Free {
    void operator()(uint8_t* memory) const;
  };
  const std::unique_ptr<uint8_t, Free> ring_;
  std::vector<Piece> queue_;

  // THREAD: the owner's alone.
  size_t ring_end_ = 0;

  std::mutex mutex_;
  std::condition_variable more_;
  // THREAD: under the mutex. Pieces queued, pieces done with (both since the beginning), ring bytes in use.
  size_t queued_ = 0;
  size_t done_ = 0;
  size_t used_ = 0;
  bool stopping_ = false;

  // THREAD: the writer's alone. Files written since their last fdatasync.
  std::vector<int> dirty_;

  std::thread preparer_;
  std::atomic<bool> preparing_{false};
  std::thread writer_;
};

}  // namespace gaia

#endif
