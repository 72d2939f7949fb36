// tscKhz of native/binding.ts.
#include <time.h>
#include <x86intrin.h>

#include <cstdint>

#include "exports.h"

namespace gaia {
namespace {

constexpr long kMeasuringNs = 20'000'000;
constexpr int kReadings = 32;

// One moment on both clocks.
struct Moment {
  uint64_t ticks;
  uint64_t ns;
};

uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Of several readings the one that took the shortest, so that no interruption lies between its two clocks.
Moment read_both() {
  Moment best{};
  uint64_t shortest = UINT64_MAX;
  for (int reading = 0; reading < kReadings; reading++) {
    const uint64_t before = __rdtsc();
    const uint64_t ns = monotonic_ns();
    const uint64_t took = __rdtsc() - before;
    if (took < shortest) {
      shortest = took;
      best = {before + took / 2, ns};
    }
  }
  return best;
}

}  // namespace

Napi::Value tsc_khz(const Napi::CallbackInfo& info) {
  const Moment begin = read_both();
  const timespec pause{0, kMeasuringNs};
  nanosleep(&pause, nullptr);
  const Moment end = read_both();
  const double khz =
      static_cast<double>(end.ticks - begin.ticks) * 1e6 / static_cast<double>(end.ns - begin.ns);
  return Napi::Number::New(info.Env(), static_cast<double>(static_cast<uint64_t>(khz + 0.5)));
}

}  // namespace gaia
