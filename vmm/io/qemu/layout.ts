/**
 * The TypeScript twin of native/gaia-layout.h, which draws the memory and the messages that QEMU's gaia port and
 * its agent share and says what each field means. Guarantees: every name, value, offset and size here is the
 * header's; layout.test.ts asks the C compiler. All numbers are little-endian, offsets and sizes in bytes.
 */

export const magic = 0x41494147;
export const version = 4;

export const pageBytes = 4096;
export const blocksMax = 64;
export const blockNameBytes = 96;
export const ringHeaderBytes = 192;
export const entryHeaderBytes = 8;
export const frameBytesMax = 69632;
export const textBytes = 192;
export const blockTableOffset = 4096;
/** Most bytes of one serial entry, and of what waits for the guest's UART. */
export const serialBytesMax = 4096;

/** Index of a ring in the area's `ringOffset`. */
export const ringIndex = {
  ingress: 0,
  deliver: 1,
  hold: 2,
  count: 3,
} as const;

export const entryKind = {
  pad: 0,
  frame: 1,
  power: 2,
  reset: 3,
  serial: 4,
  link: 5,
} as const;
/** An entry's kind is in its low 16 bits; above, a frame says how long its virtio-net header is. */
export const kindMask = 0xffff;
export const kindHeaderShift = 16;

export const messageType = {
  hello: 1,
  welcome: 2,
  run: 3,
  pause: 4,
  collect: 5,
  save: 6,
  load: 7,
  invalidate: 8,
  release: 9,
  drop: 10,
  ingress: 11,
  quit: 12,
  stop: 13,
  reset: 14,
  deliver: 15,
} as const;

/** Flag of `run`: output of this round may leave as the guest sends it. */
export const runRelease = 1;
/** Flag of `run`: end when all input is taken and the guest has gone quiet. */
export const runUntilIdle = 2;
/** Flag of `load`: translations stay, `invalidate` names the pages that were written. */
export const loadKeepCode = 1;

export const stopReason = {
  deadline: 1,
  pause: 2,
  shutdown: 3,
  reset: 4,
  panic: 5,
  holdFull: 6,
  idle: 7,
  ioError: 8,
  foreign: 9,
} as const;

export const status = {
  ok: 0,
  refused: 1,
  unusable: 2,
} as const;

/** struct gaia_message: `a` holds six u64, `text` ends with NUL. */
export const messageOffset = {
  magic: 0,
  type: 4,
  sequence: 8,
  status: 12,
  a: 16,
  text: 64,
} as const;
export const messageBytes = 256;
export const messageArguments = 6;

/** struct gaia_ring, the header in front of a ring's data. */
export const ringOffset = {
  magic: 0,
  capacity: 4,
  head: 64,
  tail: 128,
  quiet: 132,
} as const;

/** struct gaia_block, an entry of the block table. */
export const blockOffset = {
  name: 0,
  bytes: 96,
  bytesMax: 104,
  bitmapBit: 112,
  fdOffset: 120,
} as const;
export const blockBytes = 128;

/** struct gaia_area, the header of the port area: `ringOffset` holds `ringIndex.count` u64. */
export const areaOffset = {
  magic: 0,
  version: 4,
  blockCount: 8,
  areaBytes: 16,
  ringOffset: 24,
  bitmapOffset: 48,
  bitmapBytes: 56,
  applyOffset: 64,
  stateOffset: 72,
  stateBytes: 80,
  ingressDropped: 88,
  holdDropped: 96,
  serialDropped: 104,
  leaseEndNs: 112,
} as const;
export const areaHeaderBytes = 120;
