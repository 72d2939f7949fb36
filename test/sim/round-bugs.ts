/**
 * Bugs put into the rounds on purpose, most of them holes that a rule of the protocol closes. Each must be found by
 * the round simulator within its stated number of seeds.
 */
import { chooseRoundPlan, type RoundPlan } from './round-plan.ts';
import type { Prng } from './prng.ts';
import type { SimHost } from './round-world.ts';
import { RoundFailure, runRounds } from './round-swarm.ts';

export interface RoundBug {
  readonly name: string;
  /** What goes wrong by it, in the words of whoever finds that. */
  readonly says: RegExp;
  readonly harder: Partial<RoundPlan>;
  readonly plant: (host: SimHost) => void;
}

/** What the seed chose, and what makes it harder. */
export function hardPlan(harder: Partial<RoundPlan>): (prng: Prng) => RoundPlan {
  return (prng) => ({ ...chooseRoundPlan(prng), ...harder });
}

/** Runs seeds from 1 on until one fails as the bug must; says how, or else how the first one failed. */
export function huntRounds(bug: RoundBug, seedsMax: number): string {
  let other: string | undefined;
  for (let seed = 1; seed <= seedsMax; seed++) {
    try {
      runRounds(seed, { plant: bug.plant, plan: hardPlan(bug.harder) });
    } catch (error) {
      if (!(error instanceof RoundFailure)) throw error;
      if (bug.says.test(error.message)) return error.message;
      other ??= error.message;
    }
  }
  return other ?? 'No seed found anything';
}

const crashes: Partial<RoundPlan> = {
  mode: 'vsmr',
  crashEveryUs: 80_000,
  restartUsMax: 20_000,
  crashTakesGuest: 0,
};

export const ROUND_BUGS: readonly RoundBug[] = [
  {
    name: 'output leaves as soon as the inputs are committed, as only lockstep may',
    says: /releases a frame of record \d+, which \d has not applied/,
    harder: crashes,
    plant: ({ runner }) => {
      if (runner === undefined) return;
      const execute = runner.execute.bind(runner);
      runner.execute = (index) => execute(index, true);
    },
  },
  {
    name: 'output leaves once the removal of the backup is proposed, before it has committed',
    says: /releases a frame of record \d+, which \d has not applied/,
    harder: { mode: 'vsmr', partitionEveryUs: 60_000, messageDelayUsMax: 20, messageStraggles: 0 },
    plant: (host) => {
      const partners = host.loop?.partners;
      if (partners === undefined) return;
      const get = (): unknown =>
        host.replica?.executingSet.find(({ replica }) => replica !== host.id)?.replica;
      Object.defineProperty(partners, 'partner', { get });
    },
  },
  {
    name: 'a guest that a new agent finds counts as VALID',
    says: /executes record (\d+) behind record \1/,
    harder: { ...crashes, roundUsMax: 3_000, proposeIdleUsMax: 1_000 },
    plant: (host) => {
      host.trustsWhatItFinds = true;
    },
  },
  {
    name: 'what was compared is forgotten when the comparison is given up',
    says: /page \d+ differs .* and is in no set/,
    harder: { ...crashes, partitionEveryUs: 60_000 },
    plant: ({ exchange }) => {
      if (exchange === undefined) return;
      const { set } = exchange;
      set.beginComparison = () => void set.since.fill(0);
    },
  },
  {
    name: 'what was collected but not yet united is forgotten by a new agent',
    says: /page \d+ differs .* and is in no set/,
    harder: { ...crashes, dieAtStore: 0.01 },
    plant: ({ guest }) => {
      if (guest === undefined) return;
      const claim = guest.claimSet.bind(guest);
      guest.claimSet = () => {
        guest.area.fill(0);
        return claim();
      };
    },
  },
  {
    name: 'the names of the last equal rounds are not compared',
    says: /page \d+ differs .* and is in no set/,
    harder: crashes,
    plant: ({ exchange }) => {
      if (exchange === undefined) return;
      const settle = exchange.set.settle.bind(exchange.set);
      exchange.set.settle = (_name, union) => settle({ term: 1, attempt: 1, index: 1 }, union);
      Object.defineProperty(exchange.set, 'intact', { get: () => true });
    },
  },
  {
    name: 'common versions are not cleared when a side begins anew, and their names are not compared',
    says: /applied record \d+, but (page \d+ is|its devices are) not/,
    harder: { mode: 'vsmr', partitionEveryUs: 60_000, crashEveryUs: 1_000_000_000, dieAtStore: 0 },
    plant: ({ exchange }) => {
      if (exchange === undefined) return;
      const { common } = exchange;
      common.clear = () => undefined;
      const keep = common.keep.bind(common);
      common.keep = (...kept) => {
        keep(...kept);
        common.pages.hashes.fill(0);
        common.state.hash.fill(0);
      };
    },
  },
  {
    name: 'a backup that was made equal keeps the output that it held',
    says: /contradicts what clients have seen/,
    harder: crashes,
    plant: ({ guest }) => {
      if (guest === undefined) return;
      const load = guest.loadState.bind(guest);
      guest.loadState = (state) => {
        const { held } = guest;
        load(state);
        guest.held = held;
      };
    },
  },
  {
    name: 'whoever has a guest counts as VALID',
    says: /an eligible executor runs, but nobody serves/,
    harder: crashes,
    plant: ({ replica, incarnation }) => {
      if (replica === undefined) return;
      const tell = replica.setExecutor.bind(replica);
      replica.setExecutor = () => tell(incarnation, true);
    },
  },
  {
    name: 'a guest is named in the executing set before it was made equal',
    says: /releases a frame of record \d+, which \d has not applied/,
    harder: { ...crashes, crashTakesGuest: 1 },
    plant: (host) => {
      const partners = host.loop?.partners;
      if (partners === undefined) return;
      const wants = partners.wants.bind(partners);
      partners.wants = (replica, incarnation) => {
        wants(replica, incarnation);
        partners.add(replica, incarnation, host.nowUs);
      };
      const { exchange } = host;
      if (exchange !== undefined)
        Object.defineProperty(exchange.set, 'valid', { get: () => true, set: () => undefined });
    },
  },
];
