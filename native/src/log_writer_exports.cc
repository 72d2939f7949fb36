// The face of log_writer.h towards TypeScript: writers by number, each of the thread that opened it.
#include <fcntl.h>

#include <climits>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "addon_data.h"
#include "arguments.h"
#include "exports.h"
#include "log_writer.h"
#include "system_error.h"

namespace gaia {

namespace {

constexpr int64_t kRingBytesLeast = 4096;
constexpr int64_t kRingBytesMost = int64_t{1} << 30;
constexpr size_t kPathBytesMax = 4095;  // PATH_MAX without its NUL

// LIFETIME: the words live as long as this buffer or the writer, whichever is longer.
void release_words(napi_env, void*, void* hint) {
  delete static_cast<std::shared_ptr<LogWriterWords>*>(hint);
}

Napi::Value words_buffer(Napi::Env env, const LogWriter& writer) {
  auto* const keep = new std::shared_ptr<LogWriterWords>(writer.words());
  napi_value buffer;
  const napi_status status = napi_create_external_arraybuffer(env, keep->get(), sizeof(LogWriterWords),
                                                              release_words, keep, &buffer);
  if (status != napi_ok) {
    delete keep;
    throw Napi::Error::New(env);
  }
  return Napi::Value(env, buffer);
}

LogWriter& writer_of(const Arguments& arguments) {
  const int64_t number = arguments.integer(0, "writer", 1, INT_MAX);
  auto& writers = arguments.env().GetInstanceData<AddonData>()->log_writers;
  const auto found = writers.find(static_cast<int>(number));
  if (found == writers.end())
    arguments.refuse_range("writer", "must be open, unlike " + std::to_string(number));
  return *found->second;
}

}  // namespace

Napi::Value log_writer_open(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "logWriterOpen");
  const int64_t ring_bytes = arguments.integer(0, "ringBytes", kRingBytesLeast, kRingBytesMost);
  auto* const data = info.Env().GetInstanceData<AddonData>();
  std::unique_ptr<LogWriter> writer;
  try {
    writer = std::make_unique<LogWriter>(static_cast<size_t>(ring_bytes));
  } catch (const std::system_error& error) {
    throw_system_error(info.Env(), error.code().value(), "logWriterOpen", "Cannot start the log's writer");
  }
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("writer", data->next_log_writer);
  result.Set("eventFd", writer->event_fd());
  result.Set("words", words_buffer(info.Env(), *writer));
  data->log_writers.emplace(data->next_log_writer, std::move(writer));
  ++data->next_log_writer;
  return result;
}

Napi::Value log_writer_write(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "logWriterWrite");
  LogWriter& writer = writer_of(arguments);
  const int fd = arguments.fd(1, "fd");
  const int64_t offset = arguments.integer(2, "offsetBytes", 0, kIntegerMax);
  const Slice<uint8_t> bytes = arguments.uint8_array(3, "bytes");
  const int64_t at = arguments.integer(4, "at", 0, kIntegerMax);
  const int64_t length = arguments.integer(5, "length", 1, kIntegerMax);
  const bool sync = arguments.boolean(6, "sync");
  if (static_cast<size_t>(at) > bytes.length ||
      static_cast<size_t>(length) > bytes.length - static_cast<size_t>(at)) {
    arguments.refuse_range("length", "passes the end of bytes: " + std::to_string(length) + " from " +
                                         std::to_string(at) + " of " + std::to_string(bytes.length));
  }
  if (static_cast<size_t>(length) > writer.ring_bytes()) {
    arguments.refuse_range("length", "must be at most the ring's " + std::to_string(writer.ring_bytes()) +
                                         " bytes, not " + std::to_string(length));
  }
  const bool taken = writer.write(fd, offset, bytes.data + at, static_cast<size_t>(length), sync);
  return Napi::Boolean::New(info.Env(), taken);
}

Napi::Value log_writer_prepare(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "logWriterPrepare");
  LogWriter& writer = writer_of(arguments);
  const std::string path = arguments.text(1, "path", kPathBytesMax);
  const int64_t bytes = arguments.integer(2, "bytes", 1, kIntegerMax);
  const Slice<uint8_t> head = arguments.uint8_array(3, "head");
  if (static_cast<int64_t>(head.length) > bytes) {
    arguments.refuse_range("head", "must fit into the file's " + std::to_string(bytes) + " bytes, unlike " +
                                       std::to_string(head.length));
  }
  std::vector<uint8_t> copy(head.data, head.data + head.length);
  return Napi::Boolean::New(info.Env(), writer.prepare(path, bytes, std::move(copy)));
}

void file_forget_cached(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "fileForgetCached");
  const int error_number = posix_fadvise(arguments.fd(0, "fd"), 0, 0, POSIX_FADV_DONTNEED);
  if (error_number != 0) {
    throw_system_error(info.Env(), error_number, "posix_fadvise", "Cannot forget what is cached of a file");
  }
}

void log_writer_close(const Napi::CallbackInfo& info) {
  const Arguments arguments(info, "logWriterClose");
  writer_of(arguments);
  info.Env().GetInstanceData<AddonData>()->log_writers.erase(
      static_cast<int>(arguments.integer(0, "writer", 1, INT_MAX)));
}

}  // namespace gaia
