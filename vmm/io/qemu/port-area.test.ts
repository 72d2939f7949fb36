import { describe, expect, it } from 'vitest';
import { writeUint64 } from '../../core/falcon/record.ts';
import * as layout from './layout.ts';
import { whyNoArea } from './port-area.ts';

const areaBytes = 1 << 20;
const blockBytes = 1 << 24;
const { areaOffset, blockOffset } = layout;
const bitmapBytes = 1024;
const firstRing = 64 << 10;
const ringStep = 64 << 10;

/** An area of one block, as QEMU would make it. */
function soundArea(): DataView {
  const area = new DataView(new ArrayBuffer(areaBytes));
  area.setUint32(areaOffset.magic, layout.magic, true);
  area.setUint32(areaOffset.version, layout.version, true);
  area.setUint32(areaOffset.blockCount, 1, true);
  writeUint64(area, areaOffset.areaBytes, areaBytes);
  for (let ring = 0; ring < layout.ringIndex.count; ring++) {
    const at = firstRing + ring * ringStep;
    writeUint64(area, areaOffset.ringOffset + 8 * ring, at);
    area.setUint32(at + layout.ringOffset.magic, layout.magic, true);
    area.setUint32(at + layout.ringOffset.capacity, 4096, true);
  }
  writeUint64(area, areaOffset.bitmapOffset, 512 << 10);
  writeUint64(area, areaOffset.bitmapBytes, bitmapBytes);
  writeUint64(area, areaOffset.applyOffset, 516 << 10);
  writeUint64(area, areaOffset.stateOffset, 520 << 10);
  writeUint64(area, areaOffset.stateBytes, 4096);
  writeUint64(area, layout.blockTableOffset + blockOffset.bytesMax, blockBytes);
  return area;
}

const bytes = { told: areaBytes, present: areaBytes };

describe('an area passed by QEMU', () => {
  it('is taken when all its parts lie within it', () => {
    expect(whyNoArea(soundArea(), bytes, [blockBytes])).toBeUndefined();
  });

  it.each<[string, (area: DataView) => void, RegExp]>([
    ['magic', (area) => area.setUint32(areaOffset.magic, 1, true), /no port area/],
    [
      'version',
      (area) => area.setUint32(areaOffset.version, 99, true),
      /speaks layout version 99, this agent \d+: run "gaia-vm qemu build"/,
    ],
    ['length', (area) => writeUint64(area, areaOffset.areaBytes, areaBytes - 1), /its header of 1048575/],
    ['count of blocks', (area) => area.setUint32(areaOffset.blockCount, 2, true), /2 blocks and passed 1/],
    [
      'dirty bitmap behind its end',
      (area) => writeUint64(area, areaOffset.bitmapOffset, areaBytes - 64),
      /dirty bitmap of 1024 bytes at 1048512/,
    ],
    [
      'device state longer than all of it',
      (area) => writeUint64(area, areaOffset.stateBytes, areaBytes),
      /device state of 1048576 bytes/,
    ],
    [
      'ring at an odd place',
      (area) => writeUint64(area, areaOffset.ringOffset + 8, firstRing + 1),
      /ring 1 of /,
    ],
    [
      'ring of no power of two',
      (area) => area.setUint32(firstRing + layout.ringOffset.capacity, 5000, true),
      /ring 0 of Infinity bytes/,
    ],
    [
      'ring behind its end',
      (area) => writeUint64(area, areaOffset.ringOffset + 16, 2 * areaBytes),
      /ring 2 of Infinity bytes at 2097152/,
    ],
    [
      'block of half a page',
      (area) => writeUint64(area, layout.blockTableOffset + blockOffset.bytesMax, blockBytes + 2048),
      /16779264 bytes of block 0/,
    ],
    [
      'block longer than its memory',
      (area) => writeUint64(area, layout.blockTableOffset + blockOffset.bytesMax, 2 * blockBytes),
      /33554432 bytes of block 0, and 16777216 are there/,
    ],
    [
      'block whose bits lie outside of the bitmap',
      (area) => writeUint64(area, layout.blockTableOffset + blockOffset.bitmapBit, 8128),
      /block 0 from bit 8128 on/,
    ],
  ])('with another %s is refused with what is wrong', (_what, spoil, text) => {
    const area = soundArea();
    spoil(area);
    expect(whyNoArea(area, bytes, [blockBytes])).toMatch(text);
  });

  it('shorter than it says is refused', () => {
    expect(whyNoArea(soundArea(), { told: areaBytes, present: 4096 }, [blockBytes])).toMatch(
      /4096 are there/,
    );
  });
});
