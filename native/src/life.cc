// Memory that tells other processes of this one's end, sooner than its pidfd does: a killed process first
// gives its memory back, which takes a fifth of a second where it mapped a guest, and only then counts as
// ended.
//
// Two threads that do nothing each own a word of a shared page. As a thread exits, the kernel clears the word
// that set_tid_address(2) named and begins to give memory back afterwards. It leaves the word alone for the
// last thread of a process, so there are two of them.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "arguments.h"
#include "exports.h"
#include "scoped_fd.h"
#include "system_error.h"

namespace gaia {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr int kWords = 2;
constexpr size_t kStackBytes = 64 * 1024;

// LIFETIME: the page stays mapped until the process ends, and so do the threads.
struct LifePage {
  int fd = -1;
  std::atomic<uint32_t>* words = nullptr;
};

// THREAD: only sleeps. Its word is 1 from when the kernel knows it.
void* own_word(void* argument) {
  auto* word = static_cast<std::atomic<uint32_t>*>(argument);
  syscall(SYS_set_tid_address, word);
  word->store(1, std::memory_order_release);
  for (;;) pause();
}

void start_thread(Napi::Env env, std::atomic<uint32_t>* word) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  // Signals are for the threads that can act on them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, own_word, word);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error != 0) throw_system_error(env, error, "pthread_create", "Cannot start a thread");
  while (word->load(std::memory_order_acquire) == 0) sched_yield();
}

LifePage make_page(Napi::Env env) {
  const std::string what = "Cannot make the memory that tells of this process's end";
  LifePage page;
  ScopedFd fd(memfd_create("gaia-life", MFD_CLOEXEC));
  if (!fd.valid()) throw_system_error(env, errno, "memfd_create", what);
  if (ftruncate(fd.get(), kPageBytes) != 0) throw_system_error(env, errno, "ftruncate", what);
  void* memory = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) throw_system_error(env, errno, "mmap", what);
  page.words = static_cast<std::atomic<uint32_t>*>(memory);
  for (int word = 0; word < kWords; word++) start_thread(env, &page.words[word]);
  page.fd = fd.get();
  fd.release();
  return page;
}

}  // namespace

Napi::Value life_memory(const Napi::CallbackInfo& info) {
  static const LifePage page = make_page(info.Env());
  return Napi::Number::New(info.Env(), page.fd);
}

}  // namespace gaia
