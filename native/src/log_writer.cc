#include "log_writer.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

namespace gaia {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr int kCallPwrite = 1;
constexpr int kCallFdatasync = 2;

uint8_t* aligned_memory(size_t bytes) {
  void* memory = nullptr;
  const int error_number = posix_memalign(&memory, kPageBytes, bytes);
  if (error_number != 0) throw std::system_error(error_number, std::generic_category(), "posix_memalign");
  return static_cast<uint8_t*>(memory);
}

int new_event_fd() {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  return fd;
}

// A thread of ours takes no signals: they are the process's, and none may cut a sync short.
template <typename Function>
std::thread thread_without_signals(Function function) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(function);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

int sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
  const ScopedFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0) return errno;
  return 0;
}

// 0, and the file's descriptor in `result`; or an errno, and no file is left.
int prepare_file(const std::string& path, int64_t bytes, const std::vector<uint8_t>& head, int* result) {
  ScopedFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  int error_number = posix_fallocate(fd.get(), 0, bytes);
  if (error_number == 0 && !head.empty()) {
    const ssize_t written = pwrite(fd.get(), head.data(), head.size(), 0);
    if (written != static_cast<ssize_t>(head.size())) error_number = written < 0 ? errno : EIO;
  }
  if (error_number == 0 && fsync(fd.get()) != 0) error_number = errno;
  if (error_number == 0) error_number = sync_folder_of(path);
  if (error_number != 0) {
    unlink(path.c_str());
    return error_number;
  }
  *result = fd.release();
  return 0;
}

}  // namespace

void LogWriter::Free::operator()(uint8_t* memory) const { free(memory); }

LogWriter::LogWriter(size_t ring_bytes)
    : ring_bytes_(ring_bytes),
      event_fd_(new_event_fd()),
      ring_(aligned_memory(ring_bytes)),
      queue_(kQueueMax) {
  dirty_.reserve(4);
  writer_ = thread_without_signals([this] { run(); });
}

LogWriter::~LogWriter() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  more_.notify_one();
  writer_.join();
  if (!preparer_.joinable()) return;
  preparer_.join();
}

bool LogWriter::write(int fd, int64_t offset, const uint8_t* bytes, size_t length, bool sync) {
  size_t at = ring_end_;
  size_t taken = length;
  if (at + length > ring_bytes_) {  // A piece never wraps.
    taken += ring_bytes_ - at;
    at = 0;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queued_ - done_ == kQueueMax || taken > ring_bytes_ - used_) return false;
  }
  // The writer's thread looks only at what is queued, so that the copy needs no lock.
  std::memcpy(ring_.get() + at, bytes, length);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_[queued_ % kQueueMax] = {fd, offset, at, length, taken, sync};
    ++queued_;
    used_ += taken;
  }
  ring_end_ = at + length;
  more_.notify_one();
  return true;
}

void LogWriter::run() {
  for (;;) {
    size_t from;
    size_t to;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      more_.wait(lock, [this] { return queued_ != done_ || stopping_; });
      if (queued_ == done_) break;
      from = done_;
      to = queued_;
    }
    bool sync = false;
    size_t freed = 0;
    for (size_t number = from; number != to; ++number) {
      sync = sync || piece(number).sync;
      freed += piece(number).taken;
    }
    if (!write_out(from, to)) return;
    if (sync) {
      if (!sync_dirty()) return;
      words_->durable.store(static_cast<int32_t>(static_cast<uint32_t>(to)), std::memory_order_release);
      words_->groups.fetch_add(1, std::memory_order_relaxed);
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      done_ = to;
      used_ -= freed;
    }
    if (sync) ring_event();
  }
  sync_dirty();
}

// Pieces that follow one another in the ring and in their file go out in one call.
bool LogWriter::write_out(size_t from, size_t to) {
  while (from != to) {
    const Piece& first = piece(from);
    size_t length = first.length;
    for (++from; from != to; ++from) {
      const Piece& next = piece(from);
      const bool continues = next.fd == first.fd && next.at == first.at + length &&
                             next.offset == first.offset + static_cast<int64_t>(length);
      if (!continues) break;
      length += next.length;
    }
    if (std::find(dirty_.begin(), dirty_.end(), first.fd) == dirty_.end()) dirty_.push_back(first.fd);
    size_t written = 0;
    while (written < length) {
      const ssize_t bytes = pwrite(first.fd, ring_.get() + first.at + written, length - written,
                                   first.offset + static_cast<int64_t>(written));
      if (bytes < 0 && errno == EINTR) continue;
      if (bytes <= 0) {
        fail(kCallPwrite, bytes < 0 ? errno : EIO);
        return false;
      }
      written += static_cast<size_t>(bytes);
    }
  }
  return true;
}

bool LogWriter::sync_dirty() {
  for (const int fd : dirty_) {
    if (fdatasync(fd) != 0) {
      fail(kCallFdatasync, errno);
      return false;
    }
  }
  dirty_.clear();
  return true;
}

void LogWriter::fail(int call, int error_number) {
  words_->failed_call.store(call, std::memory_order_relaxed);
  words_->failed_errno.store(error_number, std::memory_order_release);
  ring_event();
}

void LogWriter::ring_event() const {
  const uint64_t one = 1;
  // It fails only when it is full, and so rung already.
  [[maybe_unused]] const ssize_t bytes = ::write(event_fd_.get(), &one, sizeof one);
}

bool LogWriter::prepare(const std::string& path, int64_t bytes, std::vector<uint8_t> head) {
  if (preparing_.exchange(true)) return false;
  if (preparer_.joinable()) preparer_.join();
  preparer_ = thread_without_signals([this, path, bytes, head = std::move(head)] {
    int fd = -1;
    const int error_number = prepare_file(path, bytes, head, &fd);
    words_->prepare_errno.store(error_number, std::memory_order_relaxed);
    words_->prepared_fd.store(fd, std::memory_order_relaxed);
    preparing_.store(false);
    words_->prepares_ended.fetch_add(1, std::memory_order_release);
    ring_event();
  });
  return true;
}

}  // namespace gaia
