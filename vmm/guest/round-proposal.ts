/** Puts the frames that wait for the guest into the record of the next round. */
import type { FalconReplica } from '../core/falcon/replica.ts';
import {
  frameBytesInRound,
  ROUND_HEADER_BYTES,
  RoundRecordType,
  writeFrame,
  writeRoundHeader,
  type RoundExtent,
} from '../core/rounds/round-record.ts';
import type { RingConsumer } from '../io/ring.ts';

/** Payload of one round's record at most: bounds how long a batch takes to travel. */
const batchBytesMax = 256 * 1024;

/**
 * Proposes a round with what waits in `ingress`, as far as it fits. `released`: up to this record the leader has released
 * its guest's output. Returns how many frames; -1: the log has no room now, and nothing was taken.
 */
export function proposeRound(
  falcon: FalconReplica,
  ingress: RingConsumer,
  extent: RoundExtent,
  released: number,
): number {
  const at = falcon.reserve(batchBytesMax);
  if (at === -1) return -1;
  const { memory } = falcon.log;
  let end = at + ROUND_HEADER_BYTES;
  let count = 0;
  while (ingress.next() && end + frameBytesInRound(ingress.length) <= at + batchBytesMax) {
    end = writeFrame(memory, end, ingress.data, ingress.offset, ingress.length);
    ingress.consume();
    count++;
  }
  writeRoundHeader(memory, at, extent, released);
  falcon.commitReserved(RoundRecordType.round, count, end - at);
  return count;
}
