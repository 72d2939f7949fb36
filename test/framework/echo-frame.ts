/** ICMP echo as load: a guest's kernel answers each request with as many bytes as it brought. */

const etherTypeIpv4 = 0x0800;
const etherHeaderBytes = 14;
const ipHeaderBytes = 20;
const icmpHeaderBytes = 8;
const protocolIcmp = 1;

function internetChecksum(view: DataView, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** An echo request of an even number of payload bytes from a neighbour that the guest has learnt of by ARP. */
export function echoRequest(guest: string, asker: string, macs: EchoMacs, payloadBytes: number): Uint8Array {
  const frame = new Uint8Array(etherHeaderBytes + ipHeaderBytes + icmpHeaderBytes + payloadBytes);
  const view = new DataView(frame.buffer);
  frame.set(macs.guest, 0);
  frame.set(macs.asker, 6);
  view.setUint16(12, etherTypeIpv4);
  const ip = etherHeaderBytes;
  view.setUint8(ip, 0x45);
  view.setUint16(ip + 2, ipHeaderBytes + icmpHeaderBytes + payloadBytes);
  view.setUint8(ip + 8, 64);
  view.setUint8(ip + 9, protocolIcmp);
  frame.set(asker.split('.').map(Number), ip + 12);
  frame.set(guest.split('.').map(Number), ip + 16);
  view.setUint16(ip + 10, internetChecksum(view, ip, ip + ipHeaderBytes));
  const icmp = ip + ipHeaderBytes;
  view.setUint8(icmp, 8);
  frame.fill(0x5a, icmp + icmpHeaderBytes);
  view.setUint16(icmp + 2, internetChecksum(view, icmp, frame.length));
  return frame;
}

export interface EchoMacs {
  readonly guest: readonly number[];
  readonly asker: readonly number[];
}

/** Whether `frame` is the answer to such a request. */
export function isEchoReply(frame: Uint8Array): boolean {
  const ip = etherHeaderBytes;
  return (
    frame.length > ip + ipHeaderBytes && frame[ip + 9] === protocolIcmp && frame[ip + ipHeaderBytes] === 0
  );
}
