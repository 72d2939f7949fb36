/** Makes one standing guest the copy of another: memory, device state and the frames that wait for it. */
import type { PortGuest } from './port-guest.ts';

/**
 * Gives the standing `leader`'s whole state to `backup`, a standing guest of the same machine. Afterwards no page of
 * either is dirty, and what they sent before is forgotten.
 */
export function cloneGuest(leader: PortGuest, backup: PortGuest): void {
  const stopped = leader.port.pause();
  const { bytes, checksum } = leader.port.save();
  // Some of what devices know is in no saved state, and loading resets it: so both load the same.
  leader.port.load(bytes, checksum);
  for (const [index, block] of leader.port.blocks.entries()) {
    const other = backup.port.blocks[index];
    if (other?.name !== block.name) throw new Error(`The backup has no block ${block.name}`);
    Buffer.from(other.memory).set(Buffer.from(block.memory));
  }
  backup.port.deliver.data.set(leader.port.deliver.data);
  backup.port.deliver.moveTo(stopped.deliverTail, leader.port.deliver.head);
  backup.port.deviceState.set(leader.port.deviceState.subarray(0, bytes));
  backup.port.load(bytes, checksum);
  backup.stateLoaded(stopped.virtualNs);
  for (const guest of [leader, backup]) {
    guest.port.collect();
    guest.takeOutput();
  }
}
