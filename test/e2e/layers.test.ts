import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SourceTree, type Ended } from '../framework/source-tree.ts';

let tree: SourceTree;
beforeEach(() => {
  tree = SourceTree.create(['.dependency-cruiser.cjs', 'package.json', 'tsconfig.json']);
  put('vmm/core/innocent.ts', 'export const one = 1;\n');
  put('vmm/io/innocent.ts', "import { one } from '../core/innocent.ts';\nexport const two = one + 1;\n");
  put('cli/innocent.ts', "export { two } from '../vmm/index.ts';\n");
  put('vmm/index.ts', "export { two } from './io/innocent.ts';\n");
});
afterEach(() => tree.remove());

function put(path: string, text: string): void {
  mkdirSync(dirname(tree.path(path)), { recursive: true });
  writeFileSync(tree.path(path), text);
}

async function cruise(): Promise<Ended> {
  const tool = 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs';
  const words = [tool, '--config', '.dependency-cruiser.cjs', 'vmm', 'cli'];
  return await tree.start(process.execPath, words).ended;
}

test('imports that the layer table allows pass', async () => {
  await expect(cruise()).resolves.toMatchObject({ exitCode: 0 });
});

test.each([
  ['the core importing I/O', 'vmm/core/planted.ts', '../io/innocent.ts'],
  ['the core importing a Node module', 'vmm/core/planted.ts', 'node:fs'],
  ['the CLI reaching past the public face', 'cli/planted.ts', '../vmm/io/innocent.ts'],
  ['I/O importing the CLI', 'vmm/io/planted.ts', '../../cli/innocent.ts'],
])('%s fails the check and is named', async (_what, file, target) => {
  put(file, `import * as planted from '${target}';\nexport const used = planted;\n`);
  const { exitCode, stdout } = await cruise();
  expect(exitCode).not.toBe(0);
  expect(stdout).toContain(file);
});
