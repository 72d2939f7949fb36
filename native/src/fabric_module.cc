// The entry of the second, optional addon: native/fabric.ts documents what it exports.
#include <napi.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "arguments.h"
#include "fabric_endpoint.h"
#include "fabric_error.h"

namespace gaia {

namespace {

constexpr size_t kProviderBytesMax = 64;
constexpr size_t kNodeBytesMax = 255;
constexpr size_t kKeyBytes = 16;
constexpr int64_t kMemoryBytesMax = int64_t{1} << 32;
constexpr size_t kCompletionsMax = 256;

[[noreturn]] void rethrow(Napi::Env env, const FabricError& failure) {
  Napi::Error error = Napi::Error::New(env, failure.what());
  error.Set("code", Napi::String::New(env, failure.code()));
  error.Set("errno", Napi::Number::New(env, -failure.error()));
  error.Set("syscall", Napi::String::New(env, failure.call()));
  throw error;
}

// Runs `call`, turning its failure into an Error of this environment.
template <typename Call>
auto guarded(Napi::Env env, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const FabricError& failure) {
    rethrow(env, failure);
  }
}

// LIFETIME: `hint` is a shared pointer of the buffer's own, which keeps the pages mapped.
void finalize_pages(napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<FabricPages>*>(hint); }

class Endpoint : public Napi::ObjectWrap<Endpoint> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "FabricEndpoint",
        {InstanceMethod("name", &Endpoint::name), InstanceMethod("waitFd", &Endpoint::wait_fd),
         InstanceMethod("putBytesMax", &Endpoint::put_bytes_max),
         InstanceMethod("mayWait", &Endpoint::may_wait), InstanceMethod("addMemory", &Endpoint::add_memory),
         InstanceMethod("memoryBuffer", &Endpoint::memory_buffer),
         InstanceMethod("memoryKey", &Endpoint::memory_key),
         InstanceMethod("removeMemory", &Endpoint::remove_memory),
         InstanceMethod("addPeer", &Endpoint::add_peer), InstanceMethod("removePeer", &Endpoint::remove_peer),
         InstanceMethod("disconnectPeer", &Endpoint::disconnect_peer),
         InstanceMethod("addRemote", &Endpoint::add_remote),
         InstanceMethod("removeRemote", &Endpoint::remove_remote), InstanceMethod("put", &Endpoint::put),
         InstanceMethod("ring", &Endpoint::ring), InstanceMethod("poll", &Endpoint::poll),
         InstanceMethod("close", &Endpoint::close)});
  }

  explicit Endpoint(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Endpoint>(info) {
    const Arguments arguments(info, "FabricEndpoint");
    const std::string provider = arguments.text(0, "provider", kProviderBytesMax);
    const std::string node = arguments.text(1, "node", kNodeBytesMax);
    guarded(info.Env(), [&] { endpoint_ = std::make_unique<FabricEndpoint>(provider, node); });
  }

 private:
  FabricEndpoint& open(const Napi::CallbackInfo& info) {
    if (endpoint_ == nullptr) throw Napi::TypeError::New(info.Env(), "The fabric endpoint is closed");
    return *endpoint_;
  }

  static uint32_t number(const Arguments& arguments, size_t index, const char* name) {
    return static_cast<uint32_t>(arguments.integer(index, name, 0, UINT32_MAX));
  }

  const FabricMemory& memory(const Napi::CallbackInfo& info, const Arguments& arguments, size_t index) {
    const FabricMemory* const found = open(info).memory(number(arguments, index, "memory"));
    if (found == nullptr) arguments.refuse_range("memory", "is not, or no longer, registered");
    return *found;
  }

  Napi::Value name(const Napi::CallbackInfo& info) {
    const std::vector<uint8_t> bytes = guarded(info.Env(), [&] { return open(info).name(); });
    Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), bytes.size());
    std::memcpy(result.Data(), bytes.data(), bytes.size());
    return result;
  }

  Napi::Value wait_fd(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), open(info).wait_fd());
  }

  Napi::Value put_bytes_max(const Napi::CallbackInfo& info) {
    const size_t most = std::min(open(info).put_bytes_max(), static_cast<size_t>(kMemoryBytesMax));
    return Napi::Number::New(info.Env(), static_cast<double>(most));
  }

  Napi::Value may_wait(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), open(info).may_wait());
  }

  Napi::Value add_memory(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "addMemory");
    const int64_t bytes = arguments.integer(0, "bytes", 1, kMemoryBytesMax);
    return Napi::Number::New(
        info.Env(), guarded(info.Env(), [&] { return open(info).add_memory(static_cast<size_t>(bytes)); }));
  }

  Napi::Value memory_buffer(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "memoryBuffer");
    const std::shared_ptr<FabricPages>& pages = memory(info, arguments, 0).pages();
    auto* const held = new std::shared_ptr<FabricPages>(pages);
    napi_value buffer;
    const napi_status status = napi_create_external_arraybuffer(info.Env(), pages->base(), pages->bytes(),
                                                                finalize_pages, held, &buffer);
    if (status != napi_ok) {
      delete held;
      throw Napi::Error::New(info.Env());
    }
    return Napi::Value(info.Env(), buffer);
  }

  Napi::Value memory_key(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "memoryKey");
    const FabricMemory& found = memory(info, arguments, 0);
    const uint64_t words[] = {found.key(), found.base()};
    static_assert(sizeof words == kKeyBytes);
    Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), sizeof words);
    std::memcpy(result.Data(), words, sizeof words);
    return result;
  }

  void remove_memory(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "removeMemory");
    open(info).remove_memory(number(arguments, 0, "memory"));
  }

  Napi::Value add_peer(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "addPeer");
    const Slice<uint8_t> name = arguments.uint8_array(0, "name");
    return Napi::Number::New(
        info.Env(), guarded(info.Env(), [&] { return open(info).add_peer(name.data, name.length); }));
  }

  void remove_peer(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "removePeer");
    open(info).remove_peer(number(arguments, 0, "peer"));
  }

  void disconnect_peer(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "disconnectPeer");
    open(info).disconnect_peer(number(arguments, 0, "peer"));
  }

  Napi::Value add_remote(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "addRemote");
    const uint32_t peer = number(arguments, 0, "peer");
    const Slice<uint8_t> key = arguments.uint8_array(1, "key");
    if (key.length != kKeyBytes) {
      arguments.refuse_range("key", "must have 16 bytes, not " + std::to_string(key.length));
    }
    std::array<uint64_t, 2> words;
    std::memcpy(words.data(), key.data, kKeyBytes);
    return Napi::Number::New(
        info.Env(), guarded(info.Env(), [&] { return open(info).add_remote(peer, words[0], words[1]); }));
  }

  void remove_remote(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "removeRemote");
    open(info).remove_remote(number(arguments, 0, "remote"));
  }

  Napi::Value put(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "put");
    const uint32_t remote = number(arguments, 0, "remote");
    const int64_t remote_offset = arguments.integer(1, "remoteOffset", 0, kMemoryBytesMax);
    const FabricMemory& from = memory(info, arguments, 2);
    const auto length = static_cast<int64_t>(from.pages()->bytes());
    const int64_t offset = arguments.integer(3, "offset", 0, length);
    const int64_t bytes = arguments.integer(4, "bytes", 1, length - offset);
    const uint32_t token = number(arguments, 5, "token");
    const int status =
        open(info).put(remote, static_cast<uint64_t>(remote_offset), number(arguments, 2, "memory"),
                       static_cast<size_t>(offset), static_cast<size_t>(bytes), token);
    return Napi::Number::New(info.Env(), status);
  }

  Napi::Value ring(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "ring");
    return Napi::Number::New(info.Env(), open(info).ring(number(arguments, 0, "peer")));
  }

  Napi::Value poll(const Napi::CallbackInfo& info) {
    const Arguments arguments(info, "poll");
    const Slice<uint32_t> tokens = arguments.uint32_array(0, "tokens");
    const Slice<int32_t> errors = arguments.int32_array(1, "errors");
    const size_t room = std::min(std::min(tokens.length, errors.length), kCompletionsMax);
    std::array<FabricCompletion, kCompletionsMax> completions;
    const size_t count = guarded(info.Env(), [&] { return open(info).poll(completions.data(), room); });
    for (size_t i = 0; i < count; i++) {
      tokens.data[i] = completions[i].token;
      errors.data[i] = completions[i].error;
    }
    return Napi::Number::New(info.Env(), static_cast<double>(count));
  }

  void close(const Napi::CallbackInfo&) { endpoint_.reset(); }

  // LIFETIME: closed by close(), or with this object, at the latest when the environment ends.
  std::unique_ptr<FabricEndpoint> endpoint_;
};

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("FabricEndpoint", Endpoint::define(env));
  return exports;
}

}  // namespace

}  // namespace gaia

static Napi::Object initialize_fabric(Napi::Env env, Napi::Object exports) {
  return gaia::initialize(env, exports);
}

NODE_API_MODULE(gaia_fabric, initialize_fabric)
