/**
 * Counts what vitest ran, over all projects, and names each skipped test with its reason. A file that could
 * not be loaded and an error outside of any test count as failed tests, so that nothing broken looks whole.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const countsFile = join(dirname(fileURLToPath(import.meta.url)), 'out/counts.json');

export default class CountReporter {
  /**
   * @param {readonly import('vitest/node').TestModule[]} modules
   * @param {readonly unknown[]} unhandledErrors
   */
  onTestRunEnd(modules, unhandledErrors) {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 };
    const reasons = [];
    for (const module of modules) {
      counts.failed += module.errors().length;
      for (const suite of module.children.allSuites()) counts.failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const result = test.result();
        counts[result.state] += 1;
        if (result.state !== 'skipped') continue;
        // Without a note the reason stands in the title.
        const note = result.note === undefined ? '' : `: ${result.note}`;
        reasons.push(`skipped: ${test.fullName}${note}`);
      }
    }
    // A test that never came to its end did not pass.
    counts.failed += counts.pending;
    for (const reason of reasons) console.log(reason);
    mkdirSync(dirname(countsFile), { recursive: true });
    writeFileSync(countsFile, JSON.stringify(counts));
  }
}
