/**
 * Runs one bench: `node dist/test/bench/main.js NAME [--quick] [--cold] [--json FILE] [--svg FILE] [--docs]
 * [--image NAME]...`. The table goes to stdout, progress to stderr. Exit code 1 when any run failed, 2 for wrong usage, 6
 * when the machine lacks something; whatever happens, all that the bench made is removed.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exitCode } from '../../cli/exit-code.ts';
import { InterruptedError, interruptible } from '../../cli/interruption.ts';
import { withProgress } from '../../cli/progress.ts';
import { UsageError } from '../../cli/usage-error.ts';
import { BrokenEnvironmentError, projectFolder } from '../../vmm/index.ts';
import { commandOf, parseArguments, type BenchArguments } from './arguments.ts';
import type { Bench } from './bench.ts';
import { boot } from './boot.bench.ts';
import { keepInDocs } from './docs.ts';
import { merkle } from './merkle.bench.ts';
import { falcon } from './falcon/falcon.bench.ts';
import { currentCommit, describeMachine, describeVersions } from './machine.ts';
import { vm } from './vm/vm.bench.ts';
import { renderPlots } from './plot.ts';
import { qemu } from './qemu/qemu.bench.ts';
import { failuresOf, makeReport, renderReport } from './report.ts';

const benches: readonly Bench[] = [boot, falcon, merkle, qemu, vm];

async function main(words: readonly string[]): Promise<number> {
  const parsed = parseArguments(
    words,
    benches.map(({ name }) => name),
  );
  const bench = benches.find(({ name }) => name === parsed.name);
  return bench === undefined ? exitCode.usage : await runBench(bench, parsed);
}

async function runBench(bench: Bench, parsed: BenchArguments): Promise<number> {
  const { quick, cold, docs, jsonFile, svgFile } = parsed;
  const images = chosen(bench, parsed.images);
  const about = {
    bench: bench.name,
    command: commandOf(parsed),
    date: `${new Date().toISOString().slice(0, 19)}Z`,
    machine: describeMachine(),
    versions: await describeVersions(),
    commit: currentCommit(),
  };
  const began = performance.now();
  const outcome = await interruptible((signal) =>
    withProgress(`bench ${bench.name}`, (progress) => bench.run({ quick, cold, images, progress, signal })),
  );
  const report = makeReport({ ...about, durationS: (performance.now() - began) / 1000 }, outcome);
  process.stdout.write(`${renderReport(report)}\n`);
  const svg = renderPlots(outcome.plots);
  if (jsonFile !== undefined) writeFileSync(jsonFile, `${JSON.stringify(report, undefined, 2)}\n`);
  if (svgFile !== undefined) writeFileSync(svgFile, svg);
  if (docs) await keepInDocs(report, svg, join(projectFolder(), 'docs'));
  return failuresOf(report.rows).length === 0 ? exitCode.done : exitCode.error;
}

/** All images that the bench can measure with, or those that were named. */
function chosen({ name, images: known = [] }: Bench, wanted: readonly string[]): readonly string[] {
  const stranger = wanted.find((image) => !known.includes(image));
  if (stranger === undefined) return wanted.length === 0 ? known : wanted;
  const choice = known.length === 0 ? 'it takes none' : `choose of ${known.join(', ')}`;
  throw new UsageError(`Bench ${name} does not measure with image "${stranger}": ${choice}`);
}

function reportFailure(error: unknown): number {
  if (error instanceof UsageError) {
    const list = benches.map(({ name, describe }) => `  ${name}   ${describe}`).join('\n');
    process.stderr.write(`bench: ${error.message}\n\n${list}\n`);
    return exitCode.usage;
  }
  if (error instanceof InterruptedError) {
    process.stderr.write('bench: Interrupted, nothing was kept\n');
    return 128 + error.signalNumber;
  }
  const known = error instanceof Error && 'code' in error && String(error.code).startsWith('GAIA_');
  const text =
    error instanceof Error ? (known ? error.message : (error.stack ?? error.message)) : String(error);
  process.stderr.write(`bench: ${text}\n`);
  return error instanceof BrokenEnvironmentError ? exitCode.brokenEnvironment : exitCode.error;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = reportFailure(error);
}
