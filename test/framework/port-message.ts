/** Messages to QEMU's gaia port as no well-behaved agent sends them, and QEMU's answers with all their fields. */
import { native } from '../../native/binding.ts';
import { readUint64, writeUint64 } from '../../vmm/core/falcon/record.ts';
import * as layout from '../../vmm/io/qemu/layout.ts';

const answerTimeoutUs = 20_000_000;

export interface PortAnswer {
  readonly type: number;
  readonly sequence: number;
  readonly status: number;
  readonly arguments: readonly number[];
  readonly text: string;
}

/** A whole message, to be sent or spoilt. */
export function portMessage(type: number, ...values: readonly number[]): Uint8Array {
  const message = new Uint8Array(layout.messageBytes);
  const view = new DataView(message.buffer);
  view.setUint32(layout.messageOffset.magic, layout.magic, true);
  view.setUint32(layout.messageOffset.type, type, true);
  view.setUint32(layout.messageOffset.sequence, 0x5eed, true);
  values.forEach((value, index) => writeUint64(view, layout.messageOffset.a + 8 * index, value));
  return message;
}

/** Sends `message` as it is and returns QEMU's next answer. */
export function exchange(socketFd: number, message: Uint8Array): PortAnswer {
  native().portSend(socketFd, message);
  return nextAnswer(socketFd);
}

export function nextAnswer(socketFd: number): PortAnswer {
  if (native().waitReadable(Int32Array.of(socketFd), new Uint8Array(1), answerTimeoutUs) === 0)
    throw new Error('QEMU did not answer for 20 s');
  const answer = new Uint8Array(layout.messageBytes);
  const received = native().portReceive(socketFd, answer);
  if (received?.bytes !== layout.messageBytes) throw new Error('QEMU hung up');
  const view = new DataView(answer.buffer);
  const text = answer.subarray(layout.messageOffset.text);
  return {
    type: view.getUint32(layout.messageOffset.type, true),
    sequence: view.getUint32(layout.messageOffset.sequence, true),
    status: view.getUint32(layout.messageOffset.status, true),
    arguments: Array.from({ length: layout.messageArguments }, (_, index) =>
      readUint64(view, layout.messageOffset.a + 8 * index),
    ),
    text: new TextDecoder().decode(text.subarray(0, text.indexOf(0))),
  };
}
