/**
 * What the hashing of pages is compared with: BLAKE3's own C interface called once for each page, memcmp and memcpy,
 * compiled at the bench's start from the sources that the addon takes too, and two packages of npm.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { BrokenEnvironmentError, projectFolder } from '../../vmm/index.ts';

const require = createRequire(import.meta.url);
const registry = '/usr/share/cargo/registry';

/** Each goes over the first `count` of `pages` of `memory`. */
export interface NativePeers {
  /** Hashes to the front of `other`, 32 bytes each. */
  hashEach(memory: ArrayBuffer, pages: Uint32Array, count: number, other: ArrayBuffer): void;
  /** How many are equal in both memories. */
  compareEach(memory: ArrayBuffer, pages: Uint32Array, count: number, other: ArrayBuffer): number;
  /** Copies to the front of `other`. */
  copyEach(memory: ArrayBuffer, pages: Uint32Array, count: number, other: ArrayBuffer): void;
}

/** Compiles page-peers.c in `folder`. Throws BrokenEnvironmentError where BLAKE3's sources are not. */
export function buildNativePeers(folder: string): NativePeers {
  const sources = blake3Sources();
  const files = ['blake3.c', 'blake3_dispatch.c', 'blake3_portable.c'];
  for (const level of ['sse2', 'sse41', 'avx2', 'avx512']) files.push(`blake3_${level}_x86-64_unix.S`);
  // They come with cmake-js, as for the addon.
  const headers = createRequire(require.resolve('cmake-js'))('node-api-headers') as { include_dir: string };
  const built = join(folder, 'page-peers.node');
  execFileSync('gcc', [
    ...['-O3', '-shared', '-fPIC', '-o', built, `-I${headers.include_dir}`, `-I${sources}`],
    join(projectFolder(), 'test/bench/page-peers.c'),
    ...files.map((file) => join(sources, file)),
  ]);
  return require(built) as NativePeers;
}

function blake3Sources(): string {
  const found = readdirSync(registry).find((name) => /^blake3-\d/.test(name));
  if (process.arch !== 'x64' || found === undefined)
    throw new BrokenEnvironmentError(
      'GAIA_BENCH_BLAKE3',
      'The bench compares with BLAKE3 in C on x86-64, whose sources this machine lacks',
      'apt-get install librust-blake3-dev',
    );
  return join(registry, found, 'c');
}

/** A package's way to hash one page. */
export interface PackagePeer {
  readonly name: string;
  hash(page: Buffer): unknown;
}

/** The reference implementation as WebAssembly, and the quickest one with compiled code that is kept up. */
export function packagePeers(): PackagePeer[] {
  const wasm = require('blake3') as { hash(page: Buffer): unknown };
  const compiled = require('@napi-rs/blake-hash') as { blake3(page: Buffer): unknown };
  return [
    { name: `npm blake3 ${versionOf('blake3')} (WASM)`, hash: (page) => wasm.hash(page) },
    {
      name: `npm @napi-rs/blake-hash ${versionOf('@napi-rs/blake-hash')}`,
      hash: (page) => compiled.blake3(page),
    },
  ];
}

export function versionOf(name: string): string {
  const file = join(projectFolder(), 'node_modules', name, 'package.json');
  return (require(file) as { version: string }).version;
}
