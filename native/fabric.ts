/**
 * The typed face of the second, optional addon: one endpoint of libfabric. It is built where Debian's libfabric-dev
 * is installed and loaded only when a replica is told to use a fabric, so a machine without it does everything else.
 *
 * A put copies a range of this process's registered memory into a peer's, without the peer's doing. Puts to one
 * peer land in the order in which they were accepted, as long as the connection beneath lasts; when it breaks, the
 * provider makes another by itself, and what was under way is lost, perhaps without a word. Nothing moves, in either
 * direction, but within `poll`. Failed calls throw an Error with `code`, `syscall` and `errno`, as native/binding.ts.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { addonFile } from './binding.ts';

export interface FabricEndpoint {
  /** What a peer's `addPeer` needs. */
  name(): Uint8Array;
  /** Largest put that is kept in order with others, in bytes; at least 4096. */
  putBytesMax(): number;
  /** Readable when `poll` may have something to do; to be believed only after `mayWait`. Not the caller's. */
  waitFd(): number;
  /** False: poll again before waiting. */
  mayWait(): boolean;

  /** Zeroed memory that peers may write who have its key. A number names it. */
  addMemory(bytes: number): number;
  /** Its bytes. The buffer stays valid, whatever happens to the registration. */
  memoryBuffer(memory: number): ArrayBuffer;
  /** 16 bytes for the peer's `addRemote`. */
  memoryKey(memory: number): Uint8Array;
  /** From now on no put of a peer lands there; whoever still tries loses its connection. */
  removeMemory(memory: number): void;

  addPeer(name: Uint8Array): number;
  removePeer(peer: number): void;
  /** Ends the connections beneath, over which nothing comes: the provider would use them again for the same address. */
  disconnectPeer(peer: number): void;
  /** Memory of that peer. */
  addRemote(peer: number, key: Uint8Array): number;
  removeRemote(remote: number): void;

  /** 0: accepted, and `token` will be polled. `tryAgain`: not now, or too many are under way to this peer. Else libfabric's error number: it failed. The
   * bytes must stay as they are until then. */
  put(
    remote: number,
    remoteOffset: number,
    memory: number,
    offset: number,
    bytes: number,
    token: number,
  ): number;
  /** An empty message that ends the peer's wait. Returns as `put`. */
  ring(peer: number): number;
  /** Moves what is to be moved and gives the finished puts: how many; errors[i] is 0 or libfabric's number. */
  poll(tokens: Uint32Array, errors: Int32Array): number;
  close(): void;
}

interface FabricBinding {
  /** `provider`: "tcp;ofi_rxm", "verbs;ofi_rxm". `node`: the local address to use, numeric. */
  readonly FabricEndpoint: new (provider: string, node: string) => FabricEndpoint;
}

/** What `put` and `ring` return when the provider has no room, or makes a connection first (EAGAIN). */
export const tryAgain = 11;

const require = createRequire(import.meta.url);

/** Undefined where the addon was not built, since libfabric-dev was not there. */
export function fabric(): FabricBinding | undefined {
  const file = join(dirname(addonFile()), 'gaia_fabric.node');
  return existsSync(file) ? (require(file) as FabricBinding) : undefined;
}
