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
import type { GuestExecutor } from './guest-executor.ts';

/** Payload of one round's record at most: bounds how long a batch takes to travel. */
const batchBytesMax = 256 * 1024;

/**
 * Proposes a round with the input that waits, as far as it fits. Its record also says up to which one this leader has
 * released its guest's output. Returns how many frames; -1: the log has no room now, and nothing was taken.
 */
export function proposeRound(falcon: FalconReplica, executor: GuestExecutor, extent: RoundExtent): number {
  const { ingress } = executor.port;
  const at = falcon.reserve(batchBytesMax);
  if (at === -1) return -1;
  const { memory } = falcon.log;
  let end = at + ROUND_HEADER_BYTES;
  let count = 0;
  for (const frame of executor.takeUnagreed()) {
    // What does not fit is lost as on a wire; its sender sends it again.
    if (end + frameBytesInRound(frame.length) > at + batchBytesMax) break;
    end = writeFrame(memory, end, frame, 0, frame.length);
    count++;
  }
  while (ingress.next() && end + frameBytesInRound(ingress.length) <= at + batchBytesMax) {
    end = writeFrame(memory, end, ingress.data, ingress.offset, ingress.length);
    ingress.consume();
    count++;
  }
  writeRoundHeader(memory, at, extent, executor.appliedIndex);
  falcon.commitReserved(RoundRecordType.round, count, end - at);
  return count;
}
