// The addon's entry: gives each environment its own data and the functions of native/binding.ts.
#include <napi.h>

#include "addon_data.h"
#include "exports.h"

namespace {

template <auto function>
void define(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<function>(exports.Env(), name));
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  // LIFETIME: Node deletes it when the environment ends.
  env.SetInstanceData(new gaia::AddonData());

  define<gaia::memory_create>(exports, "memoryCreate");
  define<gaia::memory_map>(exports, "memoryMap");
  define<gaia::memory_unmap>(exports, "memoryUnmap");
  define<gaia::crc32c>(exports, "crc32c");
  define<gaia::crc32c_at>(exports, "crc32cAt");
  define<gaia::copy_bytes>(exports, "copyBytes");
  define<gaia::pipe_create>(exports, "pipeCreate");
  define<gaia::wait_readable>(exports, "waitReadable");
  define<gaia::ring>(exports, "ring");
  define<gaia::drain>(exports, "drain");
  define<gaia::pidfd_open>(exports, "pidfdOpen");
  define<gaia::life_memory>(exports, "lifeMemory");
  define<gaia::log_writer_open>(exports, "logWriterOpen");
  define<gaia::log_writer_write>(exports, "logWriterWrite");
  define<gaia::log_writer_prepare>(exports, "logWriterPrepare");
  define<gaia::log_writer_close>(exports, "logWriterClose");
  define<gaia::file_forget_cached>(exports, "fileForgetCached");
  define<gaia::port_listen>(exports, "portListen");
  define<gaia::port_accept>(exports, "portAccept");
  define<gaia::port_receive>(exports, "portReceive");
  define<gaia::port_send>(exports, "portSend");
  define<gaia::tsc_khz>(exports, "tscKhz");
  define<gaia::tap_open>(exports, "tapOpen");
  define<gaia::tap_carrier>(exports, "tapCarrier");
  define<gaia::blake3_pages>(exports, "blake3Pages");
  define<gaia::blake3_parents>(exports, "blake3Parents");
  define<gaia::blake3_parents_at>(exports, "blake3ParentsAt");
  define<gaia::blake3>(exports, "blake3");
  define<gaia::blake3_level>(exports, "blake3Level");
  define<gaia::blake3_threads>(exports, "blake3Threads");
  return exports;
}

}  // namespace

NODE_API_MODULE(gaia_native, initialize)
