/**
 * The series as its readers take it: each patch applies exactly, pleases QEMU's checkpatch, and builds with those
 * before it; and QEMU's own tests find nothing in the patched tree that they do not find in the unpatched one.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { projectFolder } from '../../vmm/io/project-folder.ts';
import { readRecipe } from '../../vmm/io/qemu/recipe.ts';
import { QemuTree, whyNoQtests } from '../framework/qemu-tree.ts';

const buildLimitMs = 7_200_000;
const qtestLimitMs = 900_000;
/** Of QEMU's tests, in its quick mode. */
const casesMin = 100;
const { patches } = readRecipe(projectFolder());
const isSoak = process.env['GAIA_SOAK'] !== undefined;
const why = isSoak ? undefined : 'runs with npm run soak: it builds QEMU many times';
const whyNoTests = why ?? whyNoQtests();

describe.skipIf(why !== undefined)(`each patch of the series (${why ?? patches.length})`, () => {
  let tree: QemuTree;

  beforeAll(async () => {
    tree = await QemuTree.unpack();
    tree.addOurFiles();
  }, buildLimitMs);

  afterAll(() => {
    tree.remove();
  });

  it.each(patches)(
    '$name applies without fuzz or offset, pleases checkpatch, and builds with those before it',
    async ({ file }) => {
      expect(await tree.complaints(file)).toEqual([]);
      expect(await tree.apply(file)).toEqual([]);
      expect(await tree.buildAsInstalled()).toMatch(/^QEMU emulator version /);
    },
    buildLimitMs,
  );
});

describe.skipIf(whyNoTests !== undefined)(`QEMU's own tests (${whyNoTests ?? 'all devices'})`, () => {
  let tree: QemuTree;
  let unpatched: string;
  let patched: string;

  beforeAll(async () => {
    tree = await QemuTree.unpack();
    unpatched = await tree.buildForTests('unpatched');
    tree.addOurFiles();
    for (const { file } of patches) await tree.apply(file);
    patched = await tree.buildForTests('patched');
  }, buildLimitMs);

  afterAll(() => {
    tree.remove();
  });

  it(
    'fail in the patched tree nowhere but where they fail in the unpatched one',
    async () => {
      const findings: string[] = [];
      let sum = 0;
      for (const name of tree.qtests) {
        const { passed, skipped, failed } = await tree.runQtest(name, patched, qtestLimitMs);
        console.log(`${name}: ${passed} passed, ${skipped} skipped, ${failed.length} failed`);
        sum += passed;
        if (failed.length === 0) continue;
        const before = await tree.runQtest(name, unpatched, qtestLimitMs);
        console.log(`${name}: failed ${failed.join(', ')}; unpatched: ${before.failed.join(', ')}`);
        findings.push(...failed.filter((case_) => !before.failed.includes(case_)));
      }
      expect(findings).toEqual([]);
      // Otherwise they could not run at all.
      expect(sum).toBeGreaterThan(casesMin);
    },
    buildLimitMs,
  );
});
