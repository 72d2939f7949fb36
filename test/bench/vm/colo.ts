/**
 * QEMU's own COLO, of Debian's stock QEMU: two guests run the same, what they send is compared frame by frame, and a
 * difference, or the end of COLO's period, makes the secondary equal by a checkpoint. The guests have no disk, so none
 * is replicated. Guarantee: `start` resolves once COLO is on; what fails leaves no process and no namespace.
 *
 *     client -- tap --+-- mirror ----------------> redirector -- secondary guest
 *                     |                                                |
 *                     +-- redirector <-- compare <-- redirector -- rewriter
 *                     |                     ^
 *                     +-- primary guest ----+
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Image } from '../../../images/index.ts';
import { machineArguments } from '../../../vmm/io/qemu/profile.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { QemuProcess } from '../../framework/qemu-process.ts';
import { QmpClient } from '../../framework/qmp-client.ts';
import {
  bareGuestAddress,
  bareGuestTap,
  bareHostAddress,
  bareMachine,
  readyTimeoutMs,
} from '../bare-guest.ts';
import { coloFiguresIn, coloTraceArguments, stoppedSinceMs } from './colo-trace.ts';
import type { RunningSystem, System } from './system.ts';

const binary = '/usr/bin/qemu-system-x86_64';
/** Where the secondary waits for the primary's state. */
const migration = 'migration';
/** What a primary says of its migration while COLO is on. */
const on = 'colo';
const coloTimeoutMs = 60_000;
/** Whole ones take a tenth of a second. */
const checkpointTimeoutMs = 10_000;
const askAgainMs = 20;

/** Takes away one thing that was started, and may take its time. */
type End = () => unknown;

export const qemuColo: System = {
  name: 'QEMU COLO',
  describe:
    "primary and secondary of Debian's stock QEMU, machine pc, one vCPU under TCG, colo-compare and checkpoints with their defaults, Unix sockets between the two, no disk",
  whyImpossible: () =>
    existsSync(binary)
      ? undefined
      : `QEMU COLO: ${binary} is not there: install it with "sudo apt-get install --no-install-recommends qemu-system-x86"`,
  async start(image, folder, signal) {
    const ends: End[] = [];
    const stop = async (): Promise<void> => {
      for (const end of ends.reverse()) await end();
    };
    try {
      return { ...(await startPair(image, folder, signal, ends)), stop };
    } catch (error) {
      await stop();
      throw error;
    }
  },
};

/** As it names itself; undefined where it is not installed. */
export function stockQemuVersion(): string | undefined {
  if (!existsSync(binary)) return undefined;
  return spawnSync(binary, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0];
}

async function startPair(
  image: Image,
  folder: string,
  signal: AbortSignal,
  ends: End[],
): Promise<Omit<RunningSystem, 'stop'>> {
  const sockets = await mkdtemp(join(folder, 'colo-'));
  ends.push(() => rm(sockets, { recursive: true, force: true }));
  const namespaces: NetworkNamespace[] = [];
  for (let number = 0; number < 2; number++) {
    const namespace = await NetworkNamespace.create();
    ends.push(() => namespace.remove());
    ends.push(() => namespace.endAll());
    namespaces.push(namespace);
  }
  const [inner, outer] = namespaces as [NetworkNamespace, NetworkNamespace];
  await outer.addTap(bareGuestTap, bareHostAddress);
  // This one stays down: all that the secondary hears comes from the primary.
  await inner.run('ip', ['tuntap', 'add', 'dev', bareGuestTap, 'mode', 'tap']);

  const run = (name: string, namespace: NetworkNamespace, words: readonly string[]): QemuProcess => {
    signal.throwIfAborted();
    const serialFile = join(sockets, `${name}.serial`);
    const profile = { ...bareMachine(image, serialFile), qmpPath: join(sockets, `${name}.qmp`) };
    const args = [...machineArguments(profile), ...words];
    const qemu = new QemuProcess({ args, serialFile, namespace, binary });
    ends.push(() => qemu.stop());
    return qemu;
  };
  const primary = run('primary', outer, primaryArguments(sockets));
  const secondary = run('secondary', inner, secondaryArguments(sockets));
  const said = (): string => `${complaints(primary)}${complaints(secondary)}`;
  const end = (): void => void Promise.all([primary.stop(), secondary.stop()]);
  signal.addEventListener('abort', end);
  ends.push(() => {
    signal.removeEventListener('abort', end);
  });

  await primary.waitForSerial(image.readyMarker ?? '', readyTimeoutMs);
  const monitor = await QmpClient.connect(join(sockets, 'primary.qmp'));
  ends.push(() => {
    monitor.close();
  });
  const failure = stillness(primary, ends);
  await Promise.race([protect(monitor, sockets, said), failure]);
  return {
    targets: [{ namespace: outer, host: bareGuestAddress, port: image.port ?? 0 }],
    figures: async () => {
      const { status } = await migrationOf(monitor);
      if (status !== on) throw new Error(`COLO ended during the load (migration "${status}"): ${said()}`);
      return coloFiguresIn(primary.stderr);
    },
    failure,
  };
}

/**
 * Rejects once a checkpoint does not come to its end. Under TCG that happens to QEMU 7.2: it looks for dirty pages
 * without its global lock, waits for the vCPU with it, and then waits for itself.
 */
function stillness(primary: QemuProcess, ends: End[]): Promise<never> {
  const failure = new Promise<never>((_, reject) => {
    const timer = setInterval(() => {
      const sinceMs = stoppedSinceMs(primary.stderr);
      if (sinceMs !== undefined && Date.now() - sinceMs > checkpointTimeoutMs)
        reject(new Error(`A checkpoint of COLO has not ended after ${checkpointTimeoutMs} ms`));
    }, 1000);
    ends.push(() => {
      clearInterval(timer);
    });
  });
  failure.catch(() => undefined); // Whoever waits for answers hears of it.
  return failure;
}

/** What a QEMU says beside its trace. */
function complaints(qemu: QemuProcess): string {
  const lines = qemu.stderr.split('\n').filter((line) => !line.includes(':colo_vm_state_change '));
  return lines.join('\n');
}

/** The filters of the primary, in the order that frames pass them. */
function primaryArguments(sockets: string): string[] {
  const server = (id: string): string[] => ['-chardev', `${socket(sockets, id)},id=${id},server=on,wait=off`];
  const client = (id: string, to: string): string[] => ['-chardev', `${socket(sockets, to)},id=${id}`];
  return [
    ...server('mirror'),
    ...server('fromSecondary'),
    ...server('fromPrimary'),
    ...client('compared', 'fromPrimary'),
    ...server('released'),
    ...client('release', 'released'),
    ...['-object', 'filter-mirror,id=mirror0,netdev=net0,queue=tx,outdev=mirror'],
    ...['-object', 'filter-redirector,id=redirect0,netdev=net0,queue=rx,indev=released'],
    ...['-object', 'filter-redirector,id=redirect1,netdev=net0,queue=rx,outdev=fromPrimary'],
    ...['-object', 'iothread,id=comparer'],
    ...[
      '-object',
      'colo-compare,id=compare0,primary_in=compared,secondary_in=fromSecondary,outdev=release,iothread=comparer',
    ],
    ...coloTraceArguments,
  ];
}

function secondaryArguments(sockets: string): string[] {
  const client = (id: string): string[] => ['-chardev', `${socket(sockets, id)},id=${id},reconnect=1`];
  return [
    ...client('mirror'),
    ...client('fromSecondary'),
    ...['-object', 'filter-redirector,id=redirect0,netdev=net0,queue=tx,indev=mirror'],
    ...['-object', 'filter-redirector,id=redirect1,netdev=net0,queue=rx,outdev=fromSecondary'],
    ...['-object', 'filter-rewriter,id=rewriter0,netdev=net0,queue=all'],
    ...['-incoming', `unix:${join(sockets, migration)}`],
  ];
}

function socket(sockets: string, name: string): string {
  return `socket,path=${join(sockets, name)}`;
}

/** Copies the primary to the secondary and resolves once both run under COLO. */
async function protect(monitor: QmpClient, sockets: string, said: () => string): Promise<void> {
  await monitor.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'x-colo', state: true }],
  });
  await monitor.execute('migrate', { uri: `unix:${join(sockets, migration)}` });
  const until = performance.now() + coloTimeoutMs;
  for (;;) {
    const { status, 'error-desc': reason = 'no reason given' } = await migrationOf(monitor);
    if (status === on) return;
    if (status === 'failed' || status === 'completed')
      throw new Error(`COLO did not come up (migration "${status}", ${reason}): ${said()}`);
    if (performance.now() > until)
      throw new Error(`COLO is not on after ${coloTimeoutMs} ms (migration "${status}"): ${said()}`);
    await new Promise((resolve) => setTimeout(resolve, askAgainMs)); // QEMU's copy takes seconds.
  }
}

interface Migration {
  readonly status: string;
  readonly 'error-desc'?: string;
}

async function migrationOf(monitor: QmpClient): Promise<Migration> {
  return (await monitor.execute('query-migrate')) as Migration;
}
