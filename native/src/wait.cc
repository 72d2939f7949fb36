// Waiting without the event loop.
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdint>
#include <ctime>

#include "arguments.h"
#include "exports.h"
#include "scoped_fd.h"
#include "system_error.h"

namespace gaia {

namespace {

constexpr size_t kWaitFdsMax = 256;
constexpr double kTimeoutUsMax = 1e15;  // 31 years: what is left of a limit beyond it is none
constexpr int64_t kNsPerS = 1'000'000'000;

int64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerS + now.tv_nsec;
}

// Polls until an entry is ready or `timeout_us` has passed; a signal does not shorten the wait.
int poll_until(pollfd* entries, size_t count, double timeout_us) {
  if (timeout_us < 0 || timeout_us > kTimeoutUsMax) {
    for (;;) {
      const int ready = ppoll(entries, count, nullptr, nullptr);
      if (ready >= 0 || errno != EINTR) return ready;
    }
  }
  int64_t left_ns = static_cast<int64_t>(std::ceil(timeout_us * 1000));
  const int64_t deadline_ns = left_ns > 0 ? monotonic_ns() + left_ns : 0;
  for (;;) {
    const timespec left = {left_ns / kNsPerS, left_ns % kNsPerS};
    const int ready = ppoll(entries, count, &left, nullptr);
    if (ready >= 0 || errno != EINTR) return ready;
    left_ns = deadline_ns - monotonic_ns();
    if (left_ns < 0) left_ns = 0;
  }
}

}  // namespace

Napi::Value wait_readable(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "waitReadable");
  const Slice<int32_t> fds = arguments.int32_array(0, "fds");
  const Slice<uint8_t> ready = arguments.uint8_array(1, "ready");
  const double timeout_us = arguments.number(2, "timeoutUs");
  if (fds.length > kWaitFdsMax) {
    arguments.refuse_range("fds", "must have at most " + std::to_string(kWaitFdsMax) + " entries, not " +
                                      std::to_string(fds.length));
  }
  if (ready.length < fds.length) {
    arguments.refuse_range(
        "ready", "must have " + std::to_string(fds.length) + " entries, not " + std::to_string(ready.length));
  }
  if (fds.length == 0 && timeout_us < 0) {
    arguments.refuse_range("fds", "must not be empty without a limit: the wait would never end");
  }

  std::array<pollfd, kWaitFdsMax> entries;
  for (size_t i = 0; i < fds.length; ++i) {
    const int32_t fd = fds.data[i];
    if (fd < 0) arguments.refuse_range("fds", "must not hold the negative descriptor " + std::to_string(fd));
    entries[i] = {fd, POLLIN, 0};
  }
  if (poll_until(entries.data(), fds.length, timeout_us) < 0) {
    throw_system_error(info.Env(), errno, "ppoll",
                       "Cannot wait for " + std::to_string(fds.length) + " descriptors");
  }
  uint32_t count = 0;
  for (size_t i = 0; i < fds.length; ++i) {
    if ((entries[i].revents & POLLNVAL) != 0) {
      throw_system_error(info.Env(), EBADF, "ppoll",
                         "Cannot wait for descriptor " + std::to_string(entries[i].fd));
    }
    ready.data[i] = entries[i].revents != 0 ? 1 : 0;
    count += ready.data[i];
  }
  return Napi::Number::New(info.Env(), count);
}

Napi::Value pidfd_open(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "pidfdOpen");
  const auto pid = static_cast<pid_t>(arguments.integer(0, "pid", 1, INT_MAX));
  // The system call itself: glibc has a function for it only since 2.36. Its descriptor is close-on-exec.
  ScopedFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) {
    throw_system_error(info.Env(), errno, "pidfd_open", "Cannot watch process " + std::to_string(pid));
  }
  const Napi::Number result = Napi::Number::New(info.Env(), fd.get());
  fd.release();
  return result;
}

}  // namespace gaia
