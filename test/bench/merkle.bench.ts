/**
 * What finding and shipping divergent pages costs: the hash rate beside other ways to hash and to touch the same
 * pages, the tree, the exchange over any number of dirty pages and any divergence, the bytes of the pages, and all of
 * it against shipping every dirty page on modelled links. The last part looks at how pages of a real guest change.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage } from '../../images/index.ts';
import { native } from '../../native/binding.ts';
import { requireQemu } from '../../vmm/index.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { BareGuest, bareGuestAddress, bareGuestTap, bareHostAddress } from './bare-guest.ts';
import type { Bench, BenchOptions, Outcome, Settings } from './bench.ts';
import { ExchangeCosts, exchangeUs, links, type ExchangeCase } from './exchange-costs.ts';
import { lookAtGuest } from './guest-pages.ts';
import { HashRates, hashRow, proposalPages } from './hash-rates.ts';
import { headlineOf, Measurements } from './measurements.ts';
import { exchangePlots } from './merkle-plots.ts';
import { bitmapOf, drawn, generator, PageMemory, scatteredPages } from './page-memory.ts';
import { buildNativePeers, versionOf } from './page-peers.ts';
import { ShippingCosts } from './shipping-costs.ts';

/** Of the proposal's 14,295 dirty pages. */
const proposalDivergent = 1_283;
const proposalShare = proposalDivergent / proposalPages;
/** Not counted: they make the code hot, as rounds after rounds do. */
const warmRuns = 8;
const stateBytes = 59 << 10;
const stateChanges = 124;
const changedWords = 30;
const guestLoad = { requests: 60_000, connections: 32, valueBytes: 64, keys: 10_000 };
const guestLookMs = 50;

interface Sizes {
  readonly hashRuns: number;
  readonly shipRuns: number;
  readonly runs: number;
  readonly counts: readonly number[];
  readonly shares: readonly number[];
  readonly looks: number;
}

const fullSizes: Sizes = {
  hashRuns: 25,
  shipRuns: 25,
  runs: 3,
  counts: [100, 1_000, 10_000, proposalPages, 100_000, 1_000_000],
  shares: [0.001, 0.01, 0.03, proposalShare, 0.2, 0.4, 0.8],
  looks: 30,
};
const quickSizes: Sizes = {
  hashRuns: 7,
  shipRuns: 7,
  runs: 2,
  counts: [100, 1_000, proposalPages, 100_000],
  shares: [0.001, 0.01, proposalShare, 0.8],
  looks: 10,
};

const shipRow = {
  wholeBytes: 'divergent pages, first time',
  deltaBytes: `divergent pages again, ${changedWords} of 512 words changed`,
  stateDelta: `device state of ${stateBytes / 1024} KiB, ${stateChanges} bytes changed`,
  wholeWrite: 'write whole',
  wholeApply: 'check and apply whole',
  deltaWrite: 'write as a delta',
  deltaApply: 'check and apply a delta',
  keep: 'hash and keep as common version',
  guestPages: 'guest under load: pages changed between two looks',
  guestWords: 'guest under load: words changed in a page shipped before',
  guestDelta: 'guest under load: delta of a page shipped before',
  guestParts: 'guest under load: the same by hashes of its parts',
  guestBytes: 'guest under load: shipped of the bytes of changed pages',
} as const;

const percentOf = (share: number): string => String(Number((100 * share).toPrecision(2)));
const caseName = (pages: number, share: number): string =>
  `${pages.toLocaleString('en-US')} pages, ${percentOf(share)} % differ`;

class MerkleRun {
  readonly measurements = new Measurements();
  readonly cases: { readonly share: number; readonly found: ExchangeCase }[] = [];
  packageNames: readonly string[] = [];
  readonly #options: BenchOptions;
  readonly #sizes: Sizes;
  readonly #memory = new PageMemory(7);
  readonly #twin = new PageMemory(7);

  constructor(options: BenchOptions, sizes: Sizes) {
    this.#options = options;
    this.#sizes = sizes;
  }

  async measure(folder: string): Promise<void> {
    const rates = new HashRates(this.measurements, this.#memory, this.#twin, buildNativePeers(folder));
    this.packageNames = rates.packages.map(({ name }) => name);
    rates.measure(this.#sizes.hashRuns, this.#options);
    this.#ship();
    this.#exchange();
    await this.#lookAtGuest(folder);
  }

  end(): void {
    this.#memory.end();
    this.#twin.end();
  }

  #ship(): void {
    const { measurements } = this;
    const pages = Uint32Array.from(
      drawn(scatteredPages(proposalPages), proposalShare, 3).sort((a, b) => a - b),
    );
    const random = generator(5);
    const [leader, backup] = [this.#memory, this.#twin].map(({ blocks }) => ({ blocks: blocks.slice(0, 1) }));
    if (leader === undefined || backup === undefined) return;
    const state = new Uint8Array(stateBytes).map(() => 256 * random());
    const costs = new ShippingCosts(leader, backup, pages, bitmapOf(pages), stateBytes);
    for (let run = 1 - warmRuns; run <= this.#sizes.shipRuns; run++) {
      this.#options.signal.throwIfAborted();
      this.#options.progress(`shipping, run ${run} of ${this.#sizes.shipRuns}`);
      for (const page of pages) {
        for (let word = page * 1024; word < page * 1024 + 1024; word++)
          this.#memory.words[word] = 2 ** 32 * random();
      }
      const whole = costs.ship(state);
      for (const page of pages) {
        for (let change = 0; change < changedWords; change++) {
          const at = page * 1024 + 2 * Math.floor(512 * random());
          this.#memory.words[at] = 2 ** 32 * random();
          this.#memory.words[at + 1] = 2 ** 32 * random();
        }
        this.#twin.words.fill(1, page * 1024 + 300, page * 1024 + 340);
      }
      for (let change = 0; change < stateChanges; change++)
        state[Math.floor(stateBytes * random())] = 256 * random();
      const delta = costs.ship(state);
      if (run <= 0) continue;
      const count = pages.length;
      measurements.add(shipRow.wholeBytes, 'bytes a page', (whole.bytes - whole.stateBytes) / count);
      measurements.add(shipRow.deltaBytes, 'bytes a page', (delta.bytes - delta.stateBytes) / count);
      measurements.add(shipRow.stateDelta, 'bytes', delta.stateBytes);
      measurements.add(shipRow.wholeWrite, 'µs a page', whole.writeUs / count);
      measurements.add(shipRow.wholeApply, 'µs a page', whole.applyUs / count);
      measurements.add(shipRow.deltaWrite, 'µs a page', delta.writeUs / count);
      measurements.add(shipRow.deltaApply, 'µs a page', delta.applyUs / count);
      measurements.add(shipRow.keep, 'µs a page', delta.keepUs / count);
    }
  }

  #exchange(): void {
    const { runs, counts, shares } = this.#sizes;
    for (const count of counts) {
      const costs = new ExchangeCosts(this.#memory, count);
      costs.measure(proposalShare, 1);
      for (let run = 1; run <= runs; run++) {
        for (const share of shares) {
          this.#options.signal.throwIfAborted();
          this.#options.progress(`${caseName(count, share)}, run ${run} of ${runs}`);
          const found = costs.measure(share, run);
          this.cases.push({ share, found });
          this.#addCase(share, found);
        }
      }
    }
  }

  #addCase(share: number, found: ExchangeCase): void {
    const { measurements } = this;
    const name = caseName(found.pages, share);
    const all = found.pages * 4096;
    if (found.pages !== proposalPages) measurements.add(hashRow.tree(found.pages), 'ms', found.treeMs);
    for (const [index, link] of links.entries()) {
      const exchange = found.exchanges[found.chosen[index] ?? 0];
      if (exchange === undefined) continue;
      const bytes = exchange.bytes + found.aroundBytes;
      if (link.name === '10 Gb/s') {
        measurements.add(`${name}: exchange`, '% of all bytes', (100 * bytes) / all);
        // Both bitmaps, the root, hashes and answers.
        measurements.add(`${name}: messages`, 'messages', 3 + 2 * exchange.exchanges);
      }
      const best = Math.min(...found.exchanges.map((each) => exchangeUs(each, link)));
      measurements.add(`chosen level ÷ best level, ${link.name}`, '×', exchangeUs(exchange, link) / best);
      const us = (row: string): number => measurements.medianOf(row) ?? NaN;
      const copyUs = 4096 / 1000 / us(hashRow.memcpy);
      const pageBytes = us(shipRow.wholeBytes);
      const hashUs = (1000 * found.treeMs) / found.pages;
      const ours =
        1000 * found.treeMs +
        3 * link.roundTripUs +
        found.aroundBytes / link.bytesPerUs +
        exchangeUs(exchange, link) +
        found.divergent *
          (us(shipRow.wholeWrite) + us(shipRow.wholeApply) + hashUs + pageBytes / link.bytesPerUs);
      const theirs = link.roundTripUs + found.pages * (2 * copyUs + 4104 / link.bytesPerUs);
      measurements.add(`${name}: against all pages, ${link.name}`, '× sooner', theirs / ours);
    }
    const flat = found.exchanges[0];
    if (flat !== undefined && found.pages >= 10_000)
      measurements.add('handling of a hash', 'µs', flat.localUs / found.pages);
  }

  async #lookAtGuest(folder: string): Promise<void> {
    const { signal, progress } = this.#options;
    await this.measurements.attempt(shipRow.guestBytes, '%', signal, async () => {
      const whyImpossible = NetworkNamespace.whyImpossible();
      if (whyImpossible !== undefined) throw new Error(`No guest was looked at: ${whyImpossible}`);
      process.env['GAIA_QEMU'] = (await requireQemu()).file;
      progress('image redis');
      const image = await buildImage('redis', { signal });
      const namespace = await NetworkNamespace.create();
      try {
        await namespace.addTap(bareGuestTap, bareHostAddress);
        progress('redis under load');
        const guest = await BareGuest.boot(image, namespace, folder, signal);
        try {
          return await this.#lookUnderLoad(guest, namespace, image.port ?? 0);
        } finally {
          await guest.stop();
        }
      } finally {
        await namespace.remove();
      }
    });
  }

  async #lookUnderLoad(guest: BareGuest, namespace: NetworkNamespace, port: number): Promise<number> {
    const { requests, connections, valueBytes, keys } = guestLoad;
    const load = namespace.run('redis-benchmark', [
      ...['-h', bareGuestAddress, '-p', String(port), '-t', 'set', '-q'],
      ...['-n', String(requests), '-c', String(connections), '-d', String(valueBytes), '-r', String(keys)],
    ]);
    const looking = lookAtGuest(guest.pid, this.#sizes.looks, guestLookMs, this.#options.signal);
    const [looks] = await Promise.all([looking, load]);
    const { measurements } = this;
    let [bytes, pages] = [0, 0];
    for (const look of looks) {
      bytes += look.bytes;
      pages += look.pages;
      measurements.add(shipRow.guestPages, 'pages', look.pages);
      if (look.deltaPages === 0) continue;
      measurements.add(shipRow.guestWords, 'of 512 words', look.deltaWords / look.deltaPages);
      measurements.add(shipRow.guestParts, 'bytes a page', look.partBytes / look.deltaPages);
      measurements.add(shipRow.guestDelta, 'bytes a page', look.deltaBytes / look.deltaPages);
    }
    return (100 * bytes) / (4096 * pages);
  }

  headline(): Record<string, number> {
    const { measurements } = this;
    const packages = this.packageNames.map((name) => measurements.medianOf(name) ?? 0);
    const ours = measurements.medianOf(hashRow.ours) ?? NaN;
    const exchange = measurements.medianOf(`${caseName(proposalPages, proposalShare)}: exchange`);
    const shipped = (row: string): number | undefined => {
      const bytes = measurements.medianOf(row);
      if (bytes === undefined || exchange === undefined) return undefined;
      return 100 - exchange - (100 * proposalShare * bytes) / 4096;
    };
    return headlineOf({
      tree_14295_pages_ms_p50: measurements.medianOf(hashRow.tree(proposalPages)),
      tree_14295_pages_avx2_ms_p50: measurements.medianOf(hashRow.treeAt('avx2')),
      hash_vs_per_page_c_ratio: measurements.ratio(hashRow.ours, hashRow.perPage),
      hash_vs_npm_ratio: ours / Math.max(...packages),
      hash_vs_memcmp_ratio: measurements.ratio(hashRow.ours, hashRow.memcmp),
      hash_vs_memcpy_ratio: measurements.ratio(hashRow.ours, hashRow.memcpy),
      exchange_bytes_percent: exchange,
      bytes_saved_percent: shipped(shipRow.wholeBytes),
      bytes_saved_with_deltas_percent: shipped(shipRow.deltaBytes),
      guest_shipped_percent: measurements.medianOf(shipRow.guestBytes),
    });
  }
}

function settingsOf(quick: boolean, sizes: Sizes): Settings {
  const linkText = links.map(({ name, roundTripUs }) => `${name} with a round trip of ${roundTripUs} µs`);
  return {
    quick,
    hashRuns: sizes.hashRuns,
    runs: sizes.runs,
    memory: '256 MiB of random bytes, mapped from a memfd; for more pages the same 16 times in a row (4 GiB)',
    pages: 'scattered evenly over the memory, the divergent ones drawn by lot: no luck for the tree',
    hashes: `one thread unless said, ${proposalPages} pages; WASM and npm packages get a view of each page`,
    exchange:
      'packed bitmaps both ways, root, and the levels that the rule chose for 10 Gb/s, really exchanged',
    links: linkText,
    against:
      'ours: tree, exchange, divergent pages whole, root again; all pages: two copies and the link. Measured work, modelled links',
    guest: `Redis in a bare VM, machine pc under TCG, redis-benchmark SET of ${guestLoad.valueBytes} bytes on ${guestLoad.connections} connections, ${guestLookMs} ms between looks`,
  };
}

export const merkle: Bench = {
  name: 'merkle',
  describe: 'what finding and shipping divergent pages costs, against hashing otherwise and shipping all',
  async run(options: BenchOptions): Promise<Outcome> {
    const sizes = options.quick ? quickSizes : fullSizes;
    const folder = await mkdtemp(join(tmpdir(), 'gaia-bench-'));
    const run = new MerkleRun(options, sizes);
    try {
      await run.measure(folder);
      return {
        settings: settingsOf(options.quick, sizes),
        versions: {
          blake3Level: native().blake3Level(),
          npmBlake3: versionOf('blake3'),
          npmBlakeHash: versionOf('@napi-rs/blake-hash'),
        },
        rows: run.measurements.rows(),
        headline: run.headline(),
        plots: exchangePlots(run.measurements.rows(), run.cases),
      };
    } finally {
      run.end();
      await rm(folder, { recursive: true, force: true });
    }
  },
};
