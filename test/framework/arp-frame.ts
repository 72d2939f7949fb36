/** ARP as a sign of life: a guest with a working kernel, card and clock answers it without any service. */

const etherTypeArp = 0x0806;
const etherTypeIpv4 = 0x0800;
const frameBytes = 60;

/** A neighbour that nobody else plays, so that its questions disturb no real connection. */
export const askerMac = [0x52, 0x54, 0x00, 0xaa, 0xaa, 0xaa];

function addressOf(text: string): number[] {
  return text.split('.').map(Number);
}

/** Who has `address`? Tell `asker`. */
export function arpRequest(address: string, asker: string): Uint8Array {
  const frame = new Uint8Array(frameBytes);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, 6);
  frame.set(askerMac, 6);
  view.setUint16(12, etherTypeArp);
  view.setUint16(14, 1); // Ethernet
  view.setUint16(16, etherTypeIpv4);
  frame[18] = 6;
  frame[19] = 4;
  view.setUint16(20, 1); // request
  frame.set(askerMac, 22);
  frame.set(addressOf(asker), 28);
  frame.set(addressOf(address), 38);
  return frame;
}

/** The asker's address when `frame` tells the asker that the sender has `address`. */
export function arpAsker(frame: Uint8Array, address: string): string | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 42 || view.getUint16(12) !== etherTypeArp || view.getUint16(20) !== 2) return undefined;
  if (frame.subarray(28, 32).join('.') !== address) return undefined;
  return frame.subarray(38, 42).join('.');
}
