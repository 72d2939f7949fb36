import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { LoadProcess } from '../../framework/load-process.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import { differingPages } from '../../framework/guest-memory.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { PortLab, running } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork, memcachedImage } from '../../framework/port-machine.ts';

function stateOf(g: PortGuest): Buffer {
  const { bytes } = g.port.save();
  return Buffer.from(g.port.deviceState.slice(0, bytes));
}
function stateDiff(a: Buffer, b: Buffer): string[] {
  const out: string[] = [`len ${a.length} ${b.length}`];
  let last = -100;
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    if (a[i] !== b[i]) {
      if (i - last > 8) {
        // nearest name
        let name = '';
        const text = a.toString('latin1', Math.max(0, i - 60000), i);
        const m = [...text.matchAll(/\x04\0\0\0.([\x01-\x40])([\x20-\x7e]{3,64})\0\0\0/gs)].at(-1);
        name = m?.[2] ?? '?';
        out.push(`${i} after ${name}+${i - (Math.max(0, i - 60000) + (m?.index ?? 0))}: ${a.toString('hex', i - 4, i + 12)} / ${b.toString('hex', i - 4, i + 12)}`);
      }
      last = i;
    }
  }
  return out;
}

test('dbg', async () => {
  const lab = await PortLab.create();
  let load: LoadProcess<unknown> | undefined;
  try {
    const image = await memcachedImage();
    const leader = lab.startImage('leader', image, {});
    leader.bootUntil(image.readyMarker ?? '');
    await lab.bringUp('leader', hostNetwork);
    leader.port.divertIngress(true);
    const step = () => void leader.runFor(250e3, leader.takeIngress(), true);
    load = await running(LoadProcess.start(lab.namespace, 'memcached-load.js', [guestAddress, '11211', '8']), step);
    for (let n = 0; n < 300; n++) step();
    const backup = lab.startImage('backup', image, {});
    let found = 0;
    for (let attempt = 0; attempt < 60 && found < 4; attempt++) {
      for (let n = 0; n < 50; n++) step();
      const pair = LockstepPair.clone(leader, backup);
      const before = pair.guests.map((g) => stateOf(g));
      const d0 = stateDiff(before[0]!, before[1]!);
      const slice = Number(process.env.SLICE ?? 5000);
      const t0 = leader.virtualNs;
      for (let n = 0; n < 250e3 / slice; n++) {
        const r = pair.round(slice);
        const diff = differingPages(leader.port, backup.port);
        const stops = r.stopped.map((s) => JSON.stringify(s));
        if (diff.length > 0 || stops[0] !== stops[1] || r.output[0].join() !== r.output[1].join()) {
          found++;
          console.log('attempt', attempt, 'slice', n, leader.virtualNs - t0, 'frames', r.frames.length, diff.slice(0, 50), stops, r.output.map((o) => o.length));
          const after = pair.guests.map((g) => stateOf(g));
          console.log('before', d0.join('\n'), '\nafter', stateDiff(after[0]!, after[1]!).join('\n'));
          before.forEach((s, i) => writeFileSync(`/tmp/st-before-${i}`, s));
          after.forEach((s, i) => writeFileSync(`/tmp/st-after-${i}`, s));
          break;
        }
      }
      backup.port.pause();
    }
    expect(1).toBe(1);
  } finally {
    load?.kill();
    await lab.remove();
  }
});
