#!/usr/bin/env node
/**
 * The set-up: makes a fresh clone ready and then does what it was asked for (`node cli/setup.mjs --help`).
 * Needs nothing but Node and Debian. Every step is skipped when its inputs have not changed and may be
 * interrupted at any point: the next run carries on or begins the step anew.
 */

/** @type {[number, number]} */
const versionMin = [20, 19];
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);

if (major < versionMin[0] || (major === versionMin[0] && minor < versionMin[1])) {
  console.error(
    `set-up: Node.js ${process.versions.node} is too old: install ${versionMin.join('.')} or newer, then run the same command again`,
  );
  process.exit(6);
}

// Only now, since an older Node could not even read the rest.
const { main } = await import('./setup/main.mjs');
process.exitCode = await main(process.argv.slice(2));
