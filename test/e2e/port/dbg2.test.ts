import { test } from 'vitest';
import { LoadProcess } from '../../framework/load-process.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import { PortLab, running } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork, memcachedImage } from '../../framework/port-machine.ts';

test('dbg', async () => {
  const lab = await PortLab.create();
  let load: LoadProcess<unknown> | undefined;
  try {
    const image = await memcachedImage();
    const leader = lab.startImage('leader', image, { machine: (process.env.MACHINE ?? 'pc') as 'pc' });
    leader.bootUntil(image.readyMarker ?? '');
    await lab.bringUp('leader', hostNetwork);
    leader.port.divertIngress(true);
    const step = () => leader.runFor(250e3, leader.takeIngress(), true);
    load = await running(LoadProcess.start(lab.namespace, 'memcached-load.js', [guestAddress, '11211', '8']), () => void step());
    for (let n = 0; n < 300; n++) step();
    const backup = lab.startImage('backup', image, { machine: (process.env.MACHINE ?? 'pc') as 'pc' });
    let between = 0;
    for (let attempt = 0; attempt < 150; attempt++) {
      const until = leader.virtualNs + 250e3;
      let s = step();
      for (let n = 0; n < 10; n++) s = step();
      const h = leader.held.head;
      if (h !== s.holdHead) console.log('after stop', attempt, s.holdHead, h);
      const t = leader.port.pause();
      if (t.holdHead !== h || t.virtualNs !== s.virtualNs) console.log('pause', attempt, s, t);
      const pair = LockstepPair.clone(leader, backup);
      if (process.env.LOAD) for (let n = 0; n < 6; n++) pair.round(250e3);
      backup.port.pause();
    }
    console.log(leader.errors, backup.errors);
  } finally {
    load?.kill();
    await lab.remove();
  }
});
