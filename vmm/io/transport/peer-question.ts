/**
 * Asks an agent on another host one thing, over a control connection of its own. Guarantee: it ends, with an answer,
 * with the refusal that the agent gave, or with `PeerUnreachableError`; nothing is answered from memory.
 */
import { createConnection } from 'node:net';
import {
  parseRefusal,
  peerProtocol,
  readLine,
  writeLine,
  type Answer,
  type Question,
} from './control-line.ts';
import type { PeerAddress } from './meeting.ts';
import { TransportError } from './transport.ts';

export class PeerUnreachableError extends TransportError {
  constructor({ host, port }: PeerAddress, cause: unknown) {
    super('GAIA_PEER_UNREACHABLE', `No agent answers at ${host} port ${port}`, { cause });
  }
}

export async function askPeer(
  address: PeerAddress,
  question: Omit<Question, 'gaia' | 'protocol'>,
  timeoutMs: number,
): Promise<unknown> {
  const socket = createConnection(address);
  const tooLong = setTimeout(() => socket.destroy(), timeoutMs);
  socket.on('error', () => socket.destroy()); // 'close' follows.
  try {
    socket.once('connect', () => {
      writeLine(socket, { gaia: 'question', protocol: peerProtocol, ...question });
    });
    const said = await readLine(socket, timeoutMs, true).catch((error: unknown) => {
      throw new PeerUnreachableError(address, error);
    });
    const refusal = parseRefusal(said);
    if (refusal !== undefined) throw new TransportError(refusal.code, refusal.text);
    return (said as Answer).answer;
  } finally {
    clearTimeout(tooLong);
    socket.destroy();
  }
}
