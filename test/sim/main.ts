/**
 * The simulator from the command line: `--seed S` replays one run; `--seconds N` runs fresh seeds for that long,
 * `--simulated N` until so many simulated seconds are through. Ends with status 1 at the first violation, or with
 * `--keep-going` after all.
 */
import { parseArgs } from 'node:util';
import { runSeed, SwarmFailure } from './swarm.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    simulated: { type: 'string' },
    first: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
});

const PROGRESS_MS = 60_000;

class Sweep {
  readonly #first: number;
  #seed: number;
  #simulatedUs = 0;
  #committed = 0;
  #elections = 0;
  #memberChanges = 0;
  #served = 0;
  #failures = 0;

  constructor(first: number) {
    this.#first = first;
    this.#seed = first;
  }

  get simulatedSeconds(): number {
    return this.#simulatedUs / 1e6;
  }

  get failures(): number {
    return this.#failures;
  }

  runNext(): void {
    try {
      const result = runSeed(this.#seed++);
      this.#simulatedUs += result.simulatedUs;
      this.#committed += result.committed;
      this.#elections += result.elections;
      this.#memberChanges += result.memberChanges;
      if (result.served) this.#served++;
    } catch (error) {
      this.#failures++;
      console.error(error instanceof SwarmFailure ? error.message : error);
    }
  }

  get summary(): string {
    return (
      `${this.#seed - this.#first} runs from seed ${this.#first}, ${Math.round(this.simulatedSeconds)} simulated seconds, ` +
      `${this.#committed} records committed, ${this.#elections} terms led, ${this.#memberChanges} changes of members, ` +
      `${this.#served} runs ended serving, ${this.#failures} violations`
    );
  }
}

if (values.seed !== undefined) {
  const result = runSeed(Number(values.seed));
  console.log(`Seed ${values.seed}: ${JSON.stringify(result)}`);
} else {
  const sweep = new Sweep(values.first === undefined ? Date.now() : Number(values.first));
  const endMs =
    performance.now() + (values.simulated === undefined ? Number(values.seconds) * 1000 : Infinity);
  const enough = values.simulated === undefined ? Infinity : Number(values.simulated);
  let tellMs = performance.now() + PROGRESS_MS;
  while (performance.now() < endMs && sweep.simulatedSeconds < enough) {
    sweep.runNext();
    if (sweep.failures > 0 && !values['keep-going']) break;
    if (performance.now() < tellMs) continue;
    console.log(sweep.summary);
    tellMs += PROGRESS_MS;
  }
  console.log(sweep.summary);
  if (sweep.failures > 0) process.exitCode = 1;
}
