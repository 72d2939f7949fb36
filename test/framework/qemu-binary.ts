/** Which QEMU the tests run: the one that GAIA_QEMU names. */

/** Throws with the remedy when none is named. */
export function qemuBinary(): string {
  const binary = process.env['GAIA_QEMU'];
  if (binary === undefined || binary === '') {
    throw new Error('No QEMU to test with: set GAIA_QEMU to the path that "gaia-vm qemu path" prints');
  }
  return binary;
}
