// The functions behind native/binding.ts, which documents them; module.cc gives them their names.
#ifndef GAIA_EXPORTS_H
#define GAIA_EXPORTS_H

#include <napi.h>

namespace gaia {

// memory.cc
Napi::Value memory_create(const Napi::CallbackInfo& info);
Napi::Value memory_map(const Napi::CallbackInfo& info);
void memory_unmap(const Napi::CallbackInfo& info);

// checksum.cc
Napi::Value crc32c(const Napi::CallbackInfo& info);
Napi::Value crc32c_at(const Napi::CallbackInfo& info);
void copy_bytes(const Napi::CallbackInfo& info);

// doorbell.cc
Napi::Value pipe_create(const Napi::CallbackInfo& info);
void ring(const Napi::CallbackInfo& info);
void drain(const Napi::CallbackInfo& info);

// wait.cc
Napi::Value wait_readable(const Napi::CallbackInfo& info);
Napi::Value pidfd_open(const Napi::CallbackInfo& info);

// log_writer_exports.cc
Napi::Value log_writer_open(const Napi::CallbackInfo& info);
Napi::Value log_writer_write(const Napi::CallbackInfo& info);
Napi::Value log_writer_prepare(const Napi::CallbackInfo& info);
void log_writer_close(const Napi::CallbackInfo& info);
void file_forget_cached(const Napi::CallbackInfo& info);

// port_socket.cc
Napi::Value port_listen(const Napi::CallbackInfo& info);
Napi::Value port_accept(const Napi::CallbackInfo& info);
Napi::Value port_receive(const Napi::CallbackInfo& info);
void port_send(const Napi::CallbackInfo& info);

// life.cc
Napi::Value life_memory(const Napi::CallbackInfo& info);

// tsc.cc
Napi::Value tsc_khz(const Napi::CallbackInfo& info);

// tap.cc
Napi::Value tap_open(const Napi::CallbackInfo& info);
void tap_carrier(const Napi::CallbackInfo& info);

// hashing.cc
void blake3_pages(const Napi::CallbackInfo& info);
void blake3_parents(const Napi::CallbackInfo& info);
void blake3_parents_at(const Napi::CallbackInfo& info);
Napi::Value blake3(const Napi::CallbackInfo& info);
Napi::Value blake3_level(const Napi::CallbackInfo& info);
Napi::Value blake3_threads(const Napi::CallbackInfo& info);

}  // namespace gaia

#endif
