/** The engine counts microseconds since its thread began; what it shares with QEMU counts by CLOCK_MONOTONIC. */

const originNs = process.hrtime.bigint() - BigInt(Math.round(performance.now() * 1e6));

/** The instant `nowUs` (of `performance.now() * 1000`) in nanoseconds of CLOCK_MONOTONIC. */
export function monotonicNs(nowUs: number): bigint {
  return originNs + BigInt(Math.round(nowUs * 1000));
}
