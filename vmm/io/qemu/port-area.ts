/**
 * Whether what QEMU passed as its port area can be one. Guarantee: where `whyNoArea` finds nothing, every ring, bitmap,
 * buffer and block that the area names lies whole within the memory that was passed.
 */
import { readUint64 } from '../../core/falcon/record.ts';
import * as layout from './layout.ts';

const ringMagicAt = layout.ringOffset.magic;

/** Bytes of the area's memory, as QEMU told and as they are. */
interface AreaBytes {
  readonly told: number;
  readonly present: number;
}

/** A reason in words, or undefined. `blocksBytes`: how much memory was passed for each block. */
export function whyNoArea(
  area: DataView,
  { told, present }: AreaBytes,
  blocksBytes: readonly number[],
): string | undefined {
  const at = (offset: number): number => readUint64(area, offset);
  const { areaOffset } = layout;
  if (area.getUint32(areaOffset.magic, true) !== layout.magic) return 'passed memory that is no port area';
  const version = area.getUint32(areaOffset.version, true);
  if (version !== layout.version)
    return `speaks layout version ${version}, this agent ${layout.version}: run "gaia-vm qemu build"`;
  if (at(areaOffset.areaBytes) !== told || told > present)
    return `told of an area of ${told} bytes, its header of ${at(areaOffset.areaBytes)}, and ${present} are there`;
  const blocks = area.getUint32(areaOffset.blockCount, true);
  if (blocks !== blocksBytes.length || blocks > layout.blocksMax)
    return `told of ${blocks} blocks and passed ${blocksBytes.length}`;
  const bitmapBytes = at(areaOffset.bitmapBytes);
  const parts: readonly (readonly [string, number, number])[] = [
    ['dirty bitmap', at(areaOffset.bitmapOffset), bitmapBytes],
    ['apply bitmap', at(areaOffset.applyOffset), bitmapBytes],
    ['device state', at(areaOffset.stateOffset), at(areaOffset.stateBytes)],
    ...Array.from({ length: layout.ringIndex.count }, (_, index) => ringPart(area, index, told)),
  ];
  for (const [name, offset, bytes] of parts) {
    if (offset % 64 !== 0 || offset + bytes > told)
      return `told of a ${name} of ${bytes} bytes at ${offset} in an area of ${told} bytes`;
  }
  return blocksBytes.map((bytes, index) => whyNoBlock(area, index, bytes, bitmapBytes)).find(Boolean);
}

/** A ring whose header makes no sense is one that fits nowhere. */
function ringPart(area: DataView, index: number, areaBytes: number): readonly [string, number, number] {
  const name = `ring ${index}`;
  const offset = readUint64(area, layout.areaOffset.ringOffset + 8 * index);
  if (offset + layout.ringHeaderBytes > areaBytes) return [name, offset, Infinity];
  const capacity = area.getUint32(offset + layout.ringOffset.capacity, true);
  const sound =
    area.getUint32(offset + ringMagicAt, true) === layout.magic &&
    capacity >= layout.pageBytes &&
    (capacity & (capacity - 1)) === 0;
  return [name, offset, sound ? layout.ringHeaderBytes + capacity : Infinity];
}

function whyNoBlock(
  area: DataView,
  index: number,
  presentBytes: number,
  bitmapBytes: number,
): string | undefined {
  const at = layout.blockTableOffset + layout.blockBytes * index;
  const bytes = readUint64(area, at + layout.blockOffset.bytesMax);
  const bit = readUint64(area, at + layout.blockOffset.bitmapBit);
  const place = readUint64(area, at + layout.blockOffset.fdOffset);
  if (bytes % layout.pageBytes !== 0 || place + bytes > presentBytes)
    return `told of ${bytes} bytes of block ${index}, and ${presentBytes} are there`;
  if (bit % 64 !== 0 || bit + bytes / layout.pageBytes > bitmapBytes * 8)
    return `told of block ${index} from bit ${bit} on, outside of a bitmap of ${bitmapBytes} bytes`;
  return undefined;
}
