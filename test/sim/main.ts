/**
 * The simulators from the command line, Falcon's and with `--rounds` that of rounds: replays one run, or sweeps over
 * many. Ends with status 1 at the first violation, or with `--keep-going` after all.
 */
import { parseArgs } from 'node:util';
import { RoundFailure, runRounds } from './round-swarm.ts';
import { runSeed, SwarmFailure } from './swarm.ts';

const USAGE = `npm run sim -- [--rounds] [--seed S]
npm run sim -- [--rounds] [--first S] [--seconds N | --simulated N] [--keep-going]

  --rounds       simulates rounds, not the Falcon log alone
  --seed S       replays one run
  --first S      sweeps from this seed on; left out: seeds that nobody has run before
  --seconds N    sweeps for so many seconds; left out: 60
  --simulated N  sweeps until so many simulated seconds are through
  --keep-going   goes on after a violation`;

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', default: false },
    rounds: { type: 'boolean', default: false },
    seed: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    simulated: { type: 'string' },
    first: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
});

/** What a sweep adds up over its runs, each figure under its name. */
interface Run {
  readonly simulatedUs: number;
  readonly served: boolean;
  readonly figures: Readonly<Record<string, number>>;
}

function runFalcon(seed: number): Run {
  const { simulatedUs, served, committed, elections, memberChanges } = runSeed(seed);
  const figures = {
    'records committed': committed,
    'terms led': elections,
    'changes of members': memberChanges,
  };
  return { simulatedUs, served, figures };
}

function runRound(seed: number): Run {
  const { simulatedUs, served, rounds, equalities, releases, terms } = runRounds(seed);
  const figures = { rounds, equalities, 'frames released': releases, terms };
  return { simulatedUs, served, figures };
}

const PROGRESS_MS = 60_000;

class Sweep {
  readonly #run: (seed: number) => Run;
  readonly #first: number;
  #seed: number;
  #simulatedUs = 0;
  readonly #figures = new Map<string, number>();
  #served = 0;
  #failures = 0;

  constructor(run: (seed: number) => Run, first: number) {
    this.#run = run;
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
      const { simulatedUs, served, figures } = this.#run(this.#seed++);
      this.#simulatedUs += simulatedUs;
      for (const [name, figure] of Object.entries(figures))
        this.#figures.set(name, (this.#figures.get(name) ?? 0) + figure);
      if (served) this.#served++;
    } catch (error) {
      this.#failures++;
      const told = error instanceof SwarmFailure || error instanceof RoundFailure;
      console.error(told ? error.message : error);
    }
  }

  get summary(): string {
    const figures = [...this.#figures].map(([name, figure]) => `${figure} ${name}, `).join('');
    return (
      `${this.#seed - this.#first} runs from seed ${this.#first}, ${Math.round(this.simulatedSeconds)} simulated seconds, ` +
      `${figures}${this.#served} runs ended serving, ${this.#failures} violations`
    );
  }
}

if (values.help) {
  console.log(USAGE);
} else if (values.seed !== undefined) {
  const replay = values.rounds ? runRounds : runSeed;
  console.log(`Seed ${values.seed}: ${JSON.stringify(replay(Number(values.seed)))}`);
} else {
  const first = values.first === undefined ? Date.now() : Number(values.first);
  const sweep = new Sweep(values.rounds ? runRound : runFalcon, first);
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
