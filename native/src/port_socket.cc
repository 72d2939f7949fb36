// The socket between an agent and its QEMU: SOCK_SEQPACKET, one message a packet, descriptors alongside.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "arguments.h"
#include "exports.h"
#include "scoped_fd.h"
#include "system_error.h"

namespace gaia {

namespace {

constexpr size_t kPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;
static_assert(kPathBytesMax == 107, "the bound that binding.ts documents");
constexpr size_t kFdsMax = 80;  // the area, the doorbell and up to 64 blocks, with room to grow
constexpr int kBacklog = 16;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

// Whether a live process holds the socket at `address`. A datagram socket asks: it can never connect to a
// packet or stream socket (EPROTOTYPE), so a listener does not see a caller who hangs up.
bool is_held(Napi::Env env, const sockaddr_un& address, const std::string& what) {
  const ScopedFd probe(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!probe.valid()) throw_system_error(env, errno, "socket", what);
  if (connect(probe.get(), generic(address), sizeof address) == 0 || errno == EPROTOTYPE) return true;
  if (errno == ECONNREFUSED || errno == ENOENT) return false;
  throw_system_error(env, errno, "connect", what);
}

// Removes what a process that has ended left at `path`; leaves everything else, so that bind refuses.
void remove_stale_socket(Napi::Env env, const std::string& path, const sockaddr_un& address,
                         const std::string& what) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return;
  if (is_held(env, address, what)) return;
  if (unlink(path.c_str()) != 0 && errno != ENOENT) throw_system_error(env, errno, "unlink", what);
}

// Descriptors that came with a message; closed unless handed on.
class ReceivedFds {
 public:
  ReceivedFds() = default;
  ReceivedFds(const ReceivedFds&) = delete;
  ReceivedFds& operator=(const ReceivedFds&) = delete;
  ~ReceivedFds() {
    for (size_t i = 0; i < count_; ++i) close(fds_[i]);
  }

  // Takes the descriptors of `message`, whose control buffer has room for no more than kFdsMax.
  void take(msghdr* message) {
    for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr; part = CMSG_NXTHDR(message, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = std::min((part->cmsg_len - CMSG_LEN(0)) / sizeof(int), fds_.size() - count_);
      std::memcpy(fds_.data() + count_, CMSG_DATA(part), count * sizeof(int));
      count_ += count;
    }
  }

  size_t count() const { return count_; }

  Napi::Array list(Napi::Env env) const {
    Napi::Array list = Napi::Array::New(env, count_);
    for (size_t i = 0; i < count_; ++i) list.Set(static_cast<uint32_t>(i), fds_[i]);
    return list;
  }

  // They are the caller's from here on.
  void release() { count_ = 0; }

 private:
  std::array<int, kFdsMax> fds_;
  size_t count_ = 0;
};

}  // namespace

Napi::Value port_listen(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "portListen");
  const std::string path = arguments.text(0, "path", kPathBytesMax);
  const std::string what = "Cannot listen on " + path;
  const sockaddr_un address = address_of(path);

  ScopedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) throw_system_error(info.Env(), errno, "socket", what);
  remove_stale_socket(info.Env(), path, address, what);
  // On Linux bind gives the file the mode of the socket: it is never wider, not even for a moment, and the
  // umask, which all threads share, stays as it is.
  if (fchmod(fd.get(), 0600) != 0) throw_system_error(info.Env(), errno, "fchmod", what);
  if (bind(fd.get(), generic(address), sizeof address) != 0) {
    throw_system_error(info.Env(), errno, "bind", what);
  }
  if (listen(fd.get(), kBacklog) != 0) {
    const int error_number = errno;
    unlink(path.c_str());
    throw_system_error(info.Env(), error_number, "listen", what);
  }
  const Napi::Number result = Napi::Number::New(info.Env(), fd.get());
  fd.release();
  return result;
}

Napi::Value port_accept(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "portAccept");
  const int listen_fd = arguments.fd(0, "listenFd");
  for (;;) {
    ScopedFd fd(accept4(listen_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.valid()) {
      const Napi::Number result = Napi::Number::New(info.Env(), fd.get());
      fd.release();
      return result;
    }
    if (errno == EAGAIN) return Napi::Number::New(info.Env(), -1);
    if (errno != EINTR && errno != ECONNABORTED) {
      throw_system_error(info.Env(), errno, "accept4",
                         "Cannot accept a connection on descriptor " + std::to_string(listen_fd));
    }
  }
}

Napi::Value port_receive(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "portReceive");
  const int fd = arguments.fd(0, "fd");
  const Slice<uint8_t> into = arguments.uint8_array(1, "into");
  if (into.length == 0) arguments.refuse_range("into", "must not be empty");
  const std::string what = "Cannot receive a message on descriptor " + std::to_string(fd);

  alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(kFdsMax * sizeof(int))> control;
  iovec part = {into.data, into.length};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ssize_t bytes;
  do {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    bytes = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    // A peer that left without reading everything is reported once, ahead of what it sent: ask again.
  } while (bytes < 0 && (errno == EINTR || errno == ECONNRESET));
  if (bytes < 0 && errno == EAGAIN) return info.Env().Null();
  if (bytes < 0) throw_system_error(info.Env(), errno, "recvmsg", what);

  ReceivedFds fds;
  fds.take(&message);
  // The kernel cuts the list short also where this process may open no more.
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    throw_system_error(info.Env(), EMSGSIZE, "recvmsg",
                       what + ", which came with more than " + std::to_string(kFdsMax) +
                           " descriptors, or more than the limit of open files allows");
  }
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    throw_system_error(info.Env(), EMSGSIZE, "recvmsg",
                       what + ", which has more than " + std::to_string(into.length) + " bytes");
  }
  // Without bytes it means that the peer has hung up, and then nothing can come along.
  if (bytes == 0 && fds.count() > 0) {
    throw_system_error(info.Env(), EBADMSG, "recvmsg", what + ", which has descriptors but no bytes");
  }
  Napi::Object received = Napi::Object::New(info.Env());
  received.Set("bytes", static_cast<double>(bytes));
  received.Set("fds", fds.list(info.Env()));
  fds.release();
  return received;
}

void port_send(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "portSend");
  const int fd = arguments.fd(0, "fd");
  const Slice<uint8_t> message = arguments.uint8_array(1, "message");
  // An empty packet would look like a hang-up.
  if (message.length == 0) arguments.refuse_range("message", "must not be empty");
  const std::string what =
      "Cannot send " + std::to_string(message.length) + " bytes on descriptor " + std::to_string(fd);
  for (;;) {
    const ssize_t bytes = send(fd, message.data, message.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (bytes == static_cast<ssize_t>(message.length)) return;
    // Only a socket that does not keep packets whole takes a part of one.
    if (bytes >= 0) throw_system_error(info.Env(), EMSGSIZE, "send", what + " whole");
    if (errno != EINTR) throw_system_error(info.Env(), errno, "send", what);
  }
}

}  // namespace gaia
