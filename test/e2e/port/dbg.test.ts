import { expect, test } from 'vitest';
import { LoadProcess } from '../../framework/load-process.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import { differingPages } from '../../framework/guest-memory.ts';
import { PortLab, running } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork, memcachedImage } from '../../framework/port-machine.ts';

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
    for (let attempt = 0; attempt < 40; attempt++) {
      for (let n = 0; n < 50; n++) step();
      const h0 = leader.held;
      leader.port.pause();
      const h1 = leader.held;
      const pair = LockstepPair.clone(leader, backup);
      const h2 = leader.held;
      const diff0 = differingPages(leader.port, backup.port);
      const r = pair.round(250e3);
      const same = r.output[0].join() === r.output[1].join();
      const diff = differingPages(leader.port, backup.port);
      console.log(attempt, h0, h1, h2, r.frames.length, diff0.length, r.output.map((o) => o.length), same, diff.length, JSON.stringify(r.stopped[0])===JSON.stringify(r.stopped[1]));
      if (!same) console.log(r.output[0], r.output[1]);
      for (let n = 0; n < 5; n++) { const q = pair.round(250e3);  console.log(q.output.map((o) => o.length), q.output[0].join() === q.output[1].join()); }
      backup.port.pause();
    }
    expect(1).toBe(1);
  } finally {
    load?.kill();
    await lab.remove();
  }
});
