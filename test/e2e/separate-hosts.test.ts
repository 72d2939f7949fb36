/** A VM whose replicas are on three hosts: namespaces with a link of 1 Gb/s each, and clients outside of them. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fabric } from '../../native/fabric.ts';
import { SeparateHosts } from '../framework/consensus/separate-hosts.ts';
import { guestAddress, HostedVm } from '../framework/hosted-vm.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { leaderOf, replicaOf } from '../framework/test-vm.ts';

const connections = '4';
const hostNumbers = [0, 1, 2] as const;
const whyImpossible =
  NetworkNamespace.whyImpossible() ?? (fabric() === undefined ? 'libfabric-dev is not installed' : undefined);

describe.skipIf(whyImpossible !== undefined)(`a VM on three hosts (${whyImpossible ?? 'namespaces'})`, () => {
  let hosts: SeparateHosts;
  let vm: HostedVm;

  beforeEach(async () => {
    hosts = await SeparateHosts.create(3, true);
    vm = await HostedVm.prepare('web1', hosts);
  });

  afterEach(async () => {
    await vm.remove();
    await hosts.remove();
  });

  const comeUp = async () => {
    for (const host of hostNumbers) vm.start(host);
    await Promise.all(hostNumbers.map((host) => vm.agent(host).until('runs replica')));
    return vm.until(0, ({ protection }) => protection === 'PROTECTED');
  };

  const clients = (port: number | null) =>
    LoadProcess.start<LoadReport>(hosts.outside, 'memcached-load.js', [
      guestAddress,
      String(port),
      connections,
    ]);

  it('serves on when the leader’s host is cut off, and is PROTECTED again once it is back', async () => {
    const started = await comeUp();
    const load = await clients(started.port);
    const before = await vm.until(0, (status) => (leaderOf(status).status?.framesDelivered ?? 0) > 1000);
    const cutOff = vm.hostOf(before.leader);
    const other = cutOff === 0 ? 1 : 0;
    await hosts.unplug(cutOff);
    const after = await vm.until(other, ({ leader }) => leader !== null && leader !== before.leader);
    expect(after.term).toBeGreaterThan(before.term);
    const served = leaderOf(after).status?.framesDelivered ?? 0;
    await vm.until(other, (status) => (leaderOf(status).status?.framesDelivered ?? 0) > served + 1000);
    await hosts.plugInAgain(cutOff);
    const again = await vm.until(other, ({ protection }) => protection === 'PROTECTED');
    expect(again.leader).toBe(after.leader);
    expect(replicaOf(again, before.leader ?? '').status?.role).toBe('backup');
    const report = await load.stop();
    expect(report.errors).toEqual([]);
    expect(report.wrongValues).toEqual([]);
    console.log(
      `cut off ${before.leader ?? '?'}, ${after.leader ?? '?'} served; longest reply ` +
        `${report.longestReplyMs.toFixed(0)} ms, median ${report.medianReplyMs.toFixed(1)} ms, ${report.operations} operations`,
    );
  });
});
