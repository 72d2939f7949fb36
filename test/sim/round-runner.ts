/** Runs a simulated guest by records, as the agent's executor runs a real one; its time is virtual. */
import { RECORD_HEADER_BYTES, recordPayloadBytes } from '../../vmm/core/falcon/record.ts';
import type { LogIndex } from '../../vmm/core/ids.ts';
import type { RoundRunner } from '../../vmm/core/rounds/round-parts.ts';
import type { Frame, RoundGuest } from './round-guest.ts';
import type { SimHost } from './round-world.ts';

export class SimRunner implements RoundRunner {
  appliedIndex = 0 as LogIndex;
  serving = false;
  readonly #host: SimHost;
  readonly #guest: RoundGuest;
  #running = 0 as LogIndex;
  #ended = false;
  #releases = false;
  #payload = new Uint8Array(0);

  constructor(host: SimHost, guest: RoundGuest) {
    this.#host = host;
    this.#guest = guest;
  }

  get stands(): boolean {
    return this.#running === 0;
  }

  execute(index: LogIndex, release: boolean): void {
    const { world, replica } = this.#host;
    if (replica === undefined) return;
    const { log } = replica;
    const at = log.offsetAt(index);
    const payload = log.memory.bytes.slice(
      at + RECORD_HEADER_BYTES,
      at + RECORD_HEADER_BYTES + recordPayloadBytes(log.memory, at),
    );
    const released = new DataView(payload.buffer).getUint32(4, true);
    if (!this.serving)
      this.#guest.held = this.#guest.held.filter((frame) => !this.#isForgotten(frame, released));
    this.#running = index;
    this.#payload = payload;
    this.#ended = false;
    this.#releases = release;
    world.checker.injected(this.#host, index);
    const { life } = this.#host;
    world.queue.after(world.prng.between(10, world.plan.roundUsMax), () => {
      if (life !== this.#host.life || this.#host.replica === undefined) return;
      this.#execute(payload);
      this.#ended = true;
      this.#host.step();
    });
  }

  /** In lockstep the leader tells in each round what it has released: nobody needs that here any more. */
  #isForgotten(frame: Frame, released: number): boolean {
    return this.#host.world.plan.mode === 'lockstep' && frame.index <= released;
  }

  #execute(payload: Uint8Array): void {
    const { world } = this.#host;
    const slips = world.network.plan.lockstepSlips > 0 && world.prng.chance(world.network.plan.lockstepSlips);
    const exact = world.plan.mode === 'lockstep' && !slips;
    this.#guest.run(this.#running, payload, () => world.prng.fraction(), exact);
    if (this.#releases && this.serving) this.releaseHeld();
  }

  /** The agent is gone: the guest stops somewhere in the round that it runs. */
  abort(): void {
    if (this.stands || this.#ended) return;
    const { prng } = this.#host.world;
    this.#guest.run(this.#running, this.#payload, () => prng.fraction(), false);
    this.#guest.held = [];
  }

  takeEnd(): boolean {
    if (!this.#ended) return false;
    this.#ended = false;
    this.appliedIndex = this.#running;
    this.#running = 0 as LogIndex;
    return true;
  }

  passOver(index: LogIndex): void {
    this.appliedIndex = index;
  }

  adopted(index: LogIndex): void {
    this.appliedIndex = index;
    this.#host.world.checker.adopted(this.#host, index);
  }

  beginServing(): void {
    this.serving = true;
    this.#host.world.checker.serves(this.#host);
    this.releaseHeld();
  }

  endServing(): void {
    this.serving = false;
  }

  releaseHeld(): void {
    for (const frame of this.#guest.held) this.#host.world.checker.released(this.#host, frame);
    this.#guest.held = [];
  }
}
