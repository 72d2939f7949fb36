import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { PortGuest, portQemu, serialFile } from '../../framework/port-guest.ts';
import { imageArguments, memcachedImage } from '../../framework/port-machine.ts';

test.each(['pc', 'microvm'] as const)('boot %s', async (machine) => {
  const folder = mkdtempSync(join(tmpdir(), 'gp-'));
  const namespace = await NetworkNamespace.create();
  const image = await memcachedImage();
  const t0 = performance.now();
  const place = { folder, name: 'a' };
  const guest = PortGuest.start({ ...place, qemu: await portQemu(), namespace, args: imageArguments(image, { machine, tapName: 'gp0', serialFile: serialFile(place) }) });
  try {
    console.log('greeted', performance.now() - t0, guest.port.blocks.map((b) => [b.name, b.bytes, b.bitmapBit]));
    guest.bootUntil(image.readyMarker ?? '');
    console.log('booted', performance.now() - t0, guest.virtualNs);
    for (const ns of [1e6, 1e6, 1e6, 1e6, 5e6, 123456.5 | 0, 777, 12345, 100e6]) { const from = guest.virtualNs; const s = guest.runFor(ns); console.log(ns, s.virtualNs - from - ns, s); }
    const t = performance.now();
    for (let i = 0; i < 500; i++) guest.runFor(250e3);
    console.log('round us', (performance.now() - t) * 2);
    const u = performance.now();
    for (let i = 0; i < 100; i++) guest.port.collect();
    console.log('collect us', (performance.now() - u) * 10);
    expect(guest.errors).toBe('');
  } finally {
    await guest.remove();
    await namespace.remove();
  }
});
