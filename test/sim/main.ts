/**
 * The simulator from the command line: `--seed S` replays one run, `--seconds N` runs fresh seeds for that
 * long and counts the simulated seconds. Ends with status 1 at the first violation.
 */
import { parseArgs } from 'node:util';
import { runSeed, SwarmFailure } from './swarm.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    first: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
});

function sweep(first: number, seconds: number): void {
  const endMs = performance.now() + seconds * 1000;
  let seed = first;
  let simulatedUs = 0;
  let committed = 0;
  let elections = 0;
  let served = 0;
  let failures = 0;
  for (; performance.now() < endMs; seed++) {
    try {
      const result = runSeed(seed);
      simulatedUs += result.simulatedUs;
      committed += result.committed;
      elections += result.elections;
      if (result.served) served++;
    } catch (error) {
      failures++;
      console.error(error instanceof SwarmFailure ? error.message : error);
      process.exitCode = 1;
      if (!values['keep-going']) return;
    }
  }
  const runs = seed - first;
  console.log(
    `${runs} runs from seed ${first}, ${Math.round(simulatedUs / 1e6)} simulated seconds, ` +
      `${committed} records committed, ${elections} terms led, ${served} runs ended serving, ${failures} violations`,
  );
}

if (values.seed !== undefined) {
  const result = runSeed(Number(values.seed));
  console.log(`Seed ${values.seed}: ${JSON.stringify(result)}`);
} else {
  const first = values.first === undefined ? Date.now() : Number(values.first);
  sweep(first, Number(values.seconds));
}
