// Shared memory: memfds and their mappings. A mapping ends once, by memoryUnmap or by its buffer's finalizer.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "arguments.h"
#include "exports.h"
#include "mapping_table.h"
#include "scoped_fd.h"
#include "system_error.h"

namespace gaia {

namespace {

constexpr size_t kNameBytesMax = 249;  // memfd_create(2)
constexpr int64_t kPageBytes = 4096;
// The largest external buffer of Node 20.
constexpr int64_t kMappingBytesMax = int64_t{1} << 32;

// LIFETIME: called after the buffer's last use, or when it was detached; `hint` is its mapping's number.
void finalize_mapping(napi_env, void*, void* hint) {
  MappingTable::instance().end(reinterpret_cast<uintptr_t>(hint));
}

// A page beyond the end of the file would kill the process with SIGBUS at its first touch.
void check_file_holds(const Arguments& arguments, int fd, int64_t offset_bytes, int64_t bytes) {
  struct stat status;
  if (fstat(fd, &status) != 0) {
    throw_system_error(arguments.env(), errno, "fstat",
                       "Cannot read the size of descriptor " + std::to_string(fd));
  }
  if (!S_ISREG(status.st_mode)) arguments.refuse_type("fd", "must be a memfd or a regular file");
  if (offset_bytes > status.st_size || bytes > status.st_size - offset_bytes) {
    arguments.refuse_range("bytes", "passes the end of the memory: " + std::to_string(bytes) +
                                        " bytes from " + std::to_string(offset_bytes) + " of " +
                                        std::to_string(status.st_size));
  }
}

}  // namespace

Napi::Value memory_create(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "memoryCreate");
  const std::string name = arguments.text(0, "name", kNameBytesMax);
  const int64_t bytes = arguments.integer(1, "bytes", 1, kIntegerMax);

  const std::string what = "Cannot create " + std::to_string(bytes) + " bytes of shared memory";
  ScopedFd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) throw_system_error(info.Env(), errno, "memfd_create", what);
  if (ftruncate(fd.get(), bytes) != 0) throw_system_error(info.Env(), errno, "ftruncate", what);
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    throw_system_error(info.Env(), errno, "fcntl", what);
  }
  const Napi::Number result = Napi::Number::New(info.Env(), fd.get());
  fd.release();
  return result;
}

Napi::Value memory_map(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "memoryMap");
  const int fd = arguments.fd(0, "fd");
  const int64_t offset_bytes = arguments.integer(1, "offsetBytes", 0, kIntegerMax);
  const int64_t bytes = arguments.integer(2, "bytes", 1, kMappingBytesMax);
  const bool writable = arguments.boolean(3, "writable");
  if (offset_bytes % kPageBytes != 0) {
    arguments.refuse_range("offsetBytes",
                           "must be a multiple of 4096 bytes, not " + std::to_string(offset_bytes));
  }
  check_file_holds(arguments, fd, offset_bytes, bytes);

  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* const base = mmap(nullptr, static_cast<size_t>(bytes), protection, MAP_SHARED, fd, offset_bytes);
  if (base == MAP_FAILED) {
    throw_system_error(info.Env(), errno, "mmap",
                       "Cannot map " + std::to_string(bytes) + " bytes of descriptor " + std::to_string(fd));
  }
  MappingTable& mappings = MappingTable::instance();
  const uintptr_t number = mappings.add(base, static_cast<size_t>(bytes));
  napi_value buffer;
  const napi_status status =
      napi_create_external_arraybuffer(info.Env(), base, static_cast<size_t>(bytes), finalize_mapping,
                                       reinterpret_cast<void*>(number), &buffer);
  if (status != napi_ok) {
    mappings.end(number);
    throw Napi::Error::New(info.Env());
  }
  return Napi::Value(info.Env(), buffer);
}

void memory_unmap(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "memoryUnmap");
  const Slice<uint8_t> bytes = arguments.array_buffer(0, "buffer");
  MappingTable& mappings = MappingTable::instance();
  const uintptr_t number = bytes.data != nullptr ? mappings.find(bytes.data) : 0;
  if (number == 0) arguments.refuse_type("buffer", "must come from memoryMap");

  // Detached first: no view may reach the addresses once they are free. The finalizer still comes, later.
  info[0].As<Napi::ArrayBuffer>().Detach();
  mappings.end(number);
}

}  // namespace gaia
