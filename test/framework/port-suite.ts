/** Tests that drive patched QEMUs through their ports: each suite has a lab of its own, gone when it ends. */
import { afterAll, beforeAll, describe } from 'vitest';
import { NetworkNamespace } from './network-namespace.ts';
import { PortLab } from './port-lab.ts';

/**
 * A `describe` with a lab that is open while its tests run. Where the machine lacks something, `whyImpossible`, the
 * tests are skipped and their title says why.
 */
export function describeInLab(
  title: string,
  tests: (lab: PortLab) => void,
  whyImpossible = NetworkNamespace.whyImpossible(),
): void {
  const shown = whyImpossible === undefined ? title : `${title} (${whyImpossible})`;
  describe.skipIf(whyImpossible !== undefined)(shown, () => {
    const lab = new PortLab();
    beforeAll(async () => {
      await lab.open();
    });
    afterAll(async () => {
      await lab.remove();
    });
    tests(lab);
  });
}
