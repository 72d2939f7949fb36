// Doorbells: eventfds and non-blocking pipes whose readability is the whole message.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "arguments.h"
#include "exports.h"
#include "scoped_fd.h"
#include "system_error.h"

namespace gaia {

Napi::Value pipe_create(const Napi::CallbackInfo& info) {
  int fds[2];
  if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) {
    throw_system_error(info.Env(), errno, "pipe2", "Cannot create a doorbell pipe");
  }
  ScopedFd read_end(fds[0]);
  ScopedFd write_end(fds[1]);
  Napi::Array ends = Napi::Array::New(info.Env(), 2);
  ends.Set(uint32_t{0}, read_end.get());
  ends.Set(uint32_t{1}, write_end.get());
  read_end.release();
  write_end.release();
  return ends;
}

void ring(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "ring");
  const int fd = arguments.fd(0, "fd");
  const std::string kind = arguments.text(1, "kind", 16);
  if (kind != "eventfd" && kind != "pipe") {
    arguments.refuse_range("kind", "must be 'eventfd' or 'pipe', not '" + kind + "'");
  }
  const uint64_t one = 1;
  const size_t bytes = kind == "eventfd" ? sizeof one : 1;
  for (;;) {
    // A doorbell that has no room for another ring has not been heard yet, and will be.
    if (write(fd, &one, bytes) >= 0 || errno == EAGAIN) return;
    if (errno != EINTR) {
      throw_system_error(info.Env(), errno, "write", "Cannot ring the doorbell " + std::to_string(fd));
    }
  }
}

void drain(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "drain");
  const int fd = arguments.fd(0, "fd");
  const std::string what = "Cannot drain the doorbell " + std::to_string(fd);
  for (;;) {
    // Asked before each read, as a doorbell from another process may lack O_NONBLOCK.
    pollfd entry = {fd, POLLIN, 0};
    const int ready = poll(&entry, 1, 0);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) throw_system_error(info.Env(), errno, "poll", what);
    if ((entry.revents & POLLNVAL) != 0) throw_system_error(info.Env(), EBADF, "poll", what);
    if ((entry.revents & POLLIN) == 0) return;

    uint8_t rings[4096];
    const ssize_t bytes = read(fd, rings, sizeof rings);
    if (bytes == 0) return;
    if (bytes > 0 || errno == EINTR) continue;
    if (errno == EAGAIN) return;
    throw_system_error(info.Env(), errno, "read", what);
  }
}

}  // namespace gaia
