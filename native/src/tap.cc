// Tap devices that live as long as their descriptors.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "arguments.h"
#include "exports.h"
#include "scoped_fd.h"
#include "system_error.h"

namespace gaia {

namespace {

// '%' would make the kernel choose a number, '/' and ':' and blanks no interface may have.
bool is_interface_name(const std::string& name) {
  if (name == "." || name == "..") return false;
  for (const char c : name) {
    if (c <= ' ' || c == '/' || c == ':' || c == '%' || c == '\x7F') return false;
  }
  return true;
}

bool vnet_header_option(const Arguments& arguments, Napi::Value options) {
  if (!options.IsObject()) arguments.refuse_type("options", "must be an object { vnetHeader: boolean }");
  const Napi::Value vnet_header = options.As<Napi::Object>().Get("vnetHeader");
  if (!vnet_header.IsBoolean()) arguments.refuse_type("options.vnetHeader", "must be a boolean");
  return vnet_header.As<Napi::Boolean>().Value();
}

}  // namespace

Napi::Value tap_open(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "tapOpen");
  const std::string name = arguments.text(0, "name", IFNAMSIZ - 1);
  if (!is_interface_name(name)) arguments.refuse_range("name", "is no interface name: " + name);
  const bool vnet_header = vnet_header_option(arguments, info[1]);

  const std::string what = "Cannot open the tap device " + name;
  ScopedFd fd(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) throw_system_error(info.Env(), errno, "open", what);
  ifreq request = {};
  std::memcpy(request.ifr_name, name.data(), name.size());
  // TUN_EXCL: a device that was there before might be persistent, or another's.
  request.ifr_flags =
      static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL | (vnet_header ? IFF_VNET_HDR : 0));
  if (ioctl(fd.get(), TUNSETIFF, &request) != 0) throw_system_error(info.Env(), errno, "ioctl", what);
  const Napi::Number result = Napi::Number::New(info.Env(), fd.get());
  fd.release();
  return result;
}

void tap_carrier(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "tapCarrier");
  const int fd = arguments.fd(0, "fd");
  const int up = arguments.boolean(1, "up") ? 1 : 0;
  if (ioctl(fd, TUNSETCARRIER, &up) != 0) {
    throw_system_error(info.Env(), errno, "ioctl",
                       "Cannot set the carrier of the tap device on descriptor " + std::to_string(fd));
  }
}

}  // namespace gaia
