/** What control connections between replicas carry: one line of JSON each way, of a bounded length. */
import type { Socket } from 'node:net';

/** Raised with every change that an older replica would misunderstand. */
export const peerProtocol = 2;

const lineBytesMax = 64 * 1024;
/** An answer holds a replica's events, too. */
const answerBytesMax = 4 * 1024 * 1024;

export interface Refusal {
  readonly code: `GAIA_${string}`;
  readonly text: string;
}

/** Whoever asks it need not be a replica: `gaia-vm status` on another host does. */
export interface Question {
  readonly gaia: 'question';
  readonly protocol: number;
  /** Of which VM. */
  readonly vm: string;
  /** Null: whoever asks does not know it yet. */
  readonly clusterId: string | null;
  readonly ask: string;
  readonly words: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly answer: unknown;
}

export function writeLine(socket: Socket, value: object): void {
  socket.write(`${JSON.stringify(value)}\n`);
}

/** The first line, parsed. Rejects at anything else, at silence for `timeoutMs` and at the connection's end. */
export function readLine(socket: Socket, timeoutMs: number, isAnswer = false): Promise<unknown> {
  const bytesMax = isAnswer ? answerBytesMax : lineBytesMax;
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    const finish = () => {
      socket.off('data', take);
      socket.off('close', ended);
      socket.setTimeout(0);
    };
    const ended = () => {
      finish();
      reject(new Error('The peer has hung up'));
    };
    const take = (data: Buffer) => {
      parts.push(data);
      bytes += data.length;
      if (bytes > bytesMax) socket.destroy();
      if (!data.includes(0x0a)) return;
      finish();
      const text = Buffer.concat(parts).toString('utf8');
      try {
        resolve(JSON.parse(text.slice(0, text.indexOf('\n'))));
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    };
    socket.on('data', take);
    socket.on('close', ended);
    socket.setTimeout(timeoutMs, () => socket.destroy());
  });
}

export function parseRefusal(value: unknown): Refusal | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { code, text } = value as Partial<Refusal>;
  return typeof code === 'string' && typeof text === 'string' ? { code, text } : undefined;
}

export function parseQuestion(value: unknown): Question | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { gaia, protocol, vm, clusterId, ask, words } = value as Partial<Question>;
  const whole =
    gaia === 'question' &&
    typeof protocol === 'number' &&
    typeof vm === 'string' &&
    (clusterId === null || typeof clusterId === 'string') &&
    typeof ask === 'string' &&
    isTexts(words);
  return whole ? { gaia, protocol, vm, clusterId, ask, words } : undefined;
}

export function isTexts(value: unknown): value is Readonly<Record<string, string>> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === 'string')
  );
}
