/**
 * Moves a free-running guest (`vsmr`, `checkpoint`): the round loop of core/rounds/ over QEMU's port. Here is only what
 * the loop does not decide: when the next round begins, and what people are told.
 */
import { native } from '../../native/binding.ts';
import { crc32cWith } from '../core/falcon/crc32c.ts';
import { recordCount, recordType } from '../core/falcon/record.ts';
import type { LogIndex, ReplicaId } from '../core/ids.ts';
import { Rate } from '../core/rate.ts';
import { EXCHANGE_HEADER_BYTES } from '../core/rounds/exchange-message.ts';
import { FreePacer } from '../core/rounds/free-pacer.ts';
import { RoundExchange } from '../core/rounds/round-exchange.ts';
import { RoundLoop } from '../core/rounds/round-loop.ts';
import {
  RoundMail,
  type ExecutionMode,
  type RoundEvent,
  type RoundWorld,
} from '../core/rounds/round-parts.ts';
import { RoundRecordType } from '../core/rounds/round-record.ts';
import type { ExchangeOutcome } from '../core/rounds/round-report.ts';
import { UnreconciledSet } from '../core/rounds/unreconciled-set.ts';
import { MailKind } from '../io/mail.ts';
import { stopReason } from '../io/qemu/layout.ts';
import type { TransportPeer } from '../io/transport/transport.ts';
import type { DriverFigures, DriverSurroundings, DriverTransfer, GuestDriver } from './guest-driver.ts';
import type { GuestExecutor } from './guest-executor.ts';
import { PortExchangeGuest } from './port-exchange-guest.ts';
import { RoundFigures } from './round-figures.ts';
import { proposeRound } from './round-proposal.ts';

const times = { stallUs: 2_000_000, leftBehindUs: 1_000_000, askAgainUs: 250_000, tellAgainUs: 500_000 };
/** The transport keeps what it has taken, so this is for peers that had to give an attempt up. */
const resendUs = 200_000;
/** A quarter of the transport's ring: several travel at once. */
const partBytes = (1 << 18) - EXCHANGE_HEADER_BYTES;
/** Beside the guest's own memory, a staging has headers and the state of its devices. */
const stagingBytesExtra = 64 << 20;
/** The peer has no room now, and nobody tells when it has. */
const blockedWaitUs = 100;
const nothing = new Uint8Array(0);

/** What carries the exchange, for the choice of its steps. */
const links = {
  shm: { roundTripUs: 60, bytesPerUs: 4_000 },
  fabric: { roundTripUs: 200, bytesPerUs: 110 },
} as const;

const mailKinds: Readonly<Record<RoundMail, number>> = {
  [RoundMail.exchange]: MailKind.exchange,
  [RoundMail.executed]: MailKind.executed,
  [RoundMail.wanted]: MailKind.stateWanted,
  [RoundMail.lost]: MailKind.guestLost,
};

export interface RoundDriverSettings {
  readonly mode: ExecutionMode;
  /** The new VM's first guest: VALID by definition. */
  readonly valid: boolean;
  readonly link: keyof typeof links;
  /** Tests: all memory is compared after each round. */
  readonly scans: boolean;
}

export class RoundDriver implements GuestDriver, RoundWorld {
  readonly executor: GuestExecutor;
  readonly #around: DriverSurroundings;
  readonly #loop: RoundLoop;
  readonly #exchange: RoundExchange;
  readonly #pacer = new FreePacer();
  readonly #rate = new Rate();
  readonly #roundFigures = new RoundFigures();
  readonly #gone = new Set<ReplicaId>();
  #nowUs = 0;
  #blocked = false;
  /** The next round waits for nothing but its time. */
  #waitsForPace = false;
  #handOverTo: ReplicaId | undefined;
  #roundBeganUs = 0;
  #roundEndedUs = 0;
  #rounds = 0;
  #reconciled = 0;
  #unionPages = 0;
  #divergentPages = 0;
  #mismatches = 0;
  #off = false;

  constructor(around: DriverSurroundings, executor: GuestExecutor, settings: RoundDriverSettings) {
    this.#around = around;
    this.executor = executor;
    const guest = new PortExchangeGuest(executor);
    const set = new UnreconciledSet(
      new Uint32Array(UnreconciledSet.wordsFor(guest.bitmapWords)),
      guest.bitmapWords,
    );
    set.valid = settings.valid;
    this.#exchange = new RoundExchange(guest, set, {
      crc32c: crc32cWith(native().crc32cAt),
      partBytes,
      stagingBytesMax: around.guestMemoryBytes + stagingBytesExtra,
      resendUs,
      link: links[settings.link],
      session: around.incarnation,
    });
    const { self, falcon, incarnation } = around;
    this.#loop = new RoundLoop({
      ...{ mode: settings.mode, self, incarnation, falcon, times, scans: settings.scans },
      guest: executor,
      exchange: this.#exchange,
      world: this,
    });
  }

  get outside(): boolean {
    return this.#loop.outside;
  }

  pass(nowUs: number): boolean {
    const { executor } = this;
    const { falcon } = this.#around;
    this.#nowUs = nowUs;
    this.#blocked = false;
    this.#waitsForPace = false;
    const awaited = falcon.log.lastIndex > executor.appliedIndex + 1 || this.#loop.wantsStand;
    if (executor.runsIdly && awaited) executor.cutShort();
    const { rounds, stands } = executor;
    const worked = this.#loop.pass(nowUs);
    if (executor.rounds !== rounds) this.#noteRoundEnd();
    if (stands && !executor.stands) this.#roundBeganUs = nowUs;
    if (this.outside) executor.standAside();
    else if (falcon.role === 'follower' && falcon.leader !== undefined) executor.standBy();
    const heeds = executor.stands ? !this.#loop.reconciling : executor.runsIdly;
    return executor.heedInput(executor.serving && heeds) || worked;
  }

  #noteRoundEnd(): void {
    this.#rounds++;
    this.#rate.count(this.#nowUs);
    this.#roundEndedUs = this.#nowUs;
    this.#pacer.roundEnded(this.#nowUs, this.executor.wasSilent);
  }

  waitUs(nowUs: number): number {
    const paceUs = this.#waitsForPace ? this.#pacer.waitUs(nowUs) : Infinity;
    const blockedUs = this.#blocked ? blockedWaitUs : Infinity;
    return Math.min(this.#loop.deadlineUs - nowUs, paceUs, blockedUs);
  }

  receive(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    // The last words of a process that has ended do not bring it back.
    if (this.#gone.has(peer.id)) return;
    for (const [mail, number] of Object.entries(mailKinds))
      if (number === kind)
        this.#loop.receive(peer.id, mail as RoundMail, bytes, this.#around.falcon.state.nowUs);
  }

  peerGone(peer: ReplicaId): void {
    this.#gone.add(peer);
    this.#loop.peerGone(peer);
  }

  peerConnected(peer: ReplicaId): void {
    this.#gone.delete(peer);
  }

  logRebased(index: LogIndex): void {
    this.#around.event('rebased', `The log begins anew behind record ${index}`, { index });
    this.#loop.rebased(index);
  }

  handOver(to: ReplicaId): string | undefined {
    if (!this.executor.serving) return 'not serving';
    if (this.#loop.joining !== undefined) return 'state is on its way to a replica';
    if (this.#loop.partners.partner !== to) return 'not executing';
    // Between two rounds, when both are equal.
    this.#handOverTo = to;
    return undefined;
  }

  figures(nowUs: number): DriverFigures {
    return {
      rounds: this.#rounds,
      roundsPerSecond: this.#rate.perSecond(nowUs),
      verifications: this.#reconciled,
      verifiedPages: this.#unionPages,
      mismatches: this.#mismatches,
      divergentPages: this.#divergentPages,
      exchange: this.#roundFigures.figures(),
      transfer: this.#transfer(nowUs),
    };
  }

  #transfer(nowUs: number): DriverTransfer | null {
    const { joining } = this.#loop;
    if (joining === undefined) return null;
    const { leader, survey } = this.#exchange;
    return {
      to: joining,
      sentBytes: survey.sentBytes + (leader.underWay ? leader.sentBytes : 0),
      totalBytes: this.#around.guestMemoryBytes,
      guestStands: leader.underWay,
      forMs: (nowUs - survey.beganUs) / 1000,
    };
  }

  // What the loop asks for ---------------------------------------------------------------------------

  get transferable(): boolean {
    return this.#around.guestReady;
  }

  send(to: ReplicaId, mail: RoundMail, bytes: Uint8Array): boolean {
    const peer = this.#gone.has(to) ? undefined : this.#around.transport.peer(to);
    const taken = peer?.send(mailKinds[mail], bytes) ?? true;
    this.#blocked = this.#blocked || !taken;
    return taken;
  }

  propose(nowUs: number): boolean {
    const { executor } = this;
    const { falcon } = this.#around;
    if (executor.ended !== undefined) return this.#proposeEnd(executor.ended);
    if (this.#handOverTo !== undefined) {
      const refusal = falcon.transferTo(this.#handOverTo, falcon.executingSet);
      this.#handOverTo = undefined;
      if (refusal !== undefined) this.#around.event('hand-over-refused', `The leadership stays: ${refusal}`);
      return true;
    }
    const awaited = executor.takeAwaitedFrames();
    if (awaited > 0) {
      // This pass has kept what was shipped, which takes a while: the next one knows what time it is.
      this.#pacer.awaits(awaited);
      return true;
    }
    const waiting = executor.waitingFrames(this.#pacer.gathers + 1);
    const extent = this.#pacer.next(nowUs, waiting, executor.idle);
    this.#waitsForPace = extent === undefined;
    return extent !== undefined && proposeRound(falcon, executor, extent) !== -1;
  }

  /** What a client asks of a guest that has nothing to do is not kept waiting for the end of its round. */
  proposeAhead(): boolean {
    const { executor } = this;
    if (!executor.runsIdly || !executor.inputWaits) return false;
    return proposeRound(this.#around.falcon, executor, this.#pacer.busy) !== -1;
  }

  #proposeEnd(ended: number): boolean {
    if (this.#off) return false;
    const type = ended === stopReason.reset ? RoundRecordType.guestReset : RoundRecordType.guestOff;
    return typeof this.#around.falcon.propose(type, ended, nothing) === 'number';
  }

  guestEnded(index: LogIndex): void {
    const { log } = this.#around.falcon;
    const at = log.offsetAt(index);
    if (recordType(log.memory, at) === RoundRecordType.guestReset) {
      this.#around.event('guest-reset', 'The guest has reset itself', { index });
      return;
    }
    this.#off = true;
    this.#around.guestOff(
      recordCount(log.memory, at) === stopReason.shutdown ? 'powered off' : 'crashed',
      index,
    );
  }

  exchanged(leads: boolean, outcome: ExchangeOutcome): void {
    const { type, report } = outcome;
    if (type === 'mismatch' || type === 'refused') {
      this.#mismatches++;
      this.#around.event('exchange-failed', `After record ${report.index}: ${outcome.text}`, {
        index: report.index,
      });
    }
    if (type === 'different') {
      this.#mismatches++;
      this.#divergentPages += outcome.pages.length;
      this.#around.event('divergence', differenceText(report.index, report.unionPages, outcome.pages), {
        index: report.index,
      });
    }
    if (type !== 'equal' || !leads) return;
    if (report.kind === 'adopt') this.#tellAdopted(report.sentBytes);
    if (report.kind === 'adopt' || report.kind === 'compare') return;
    this.#reconciled++;
    this.#unionPages += report.unionPages;
    this.#divergentPages += report.divergentPages;
    this.#roundFigures.add(report, this.#nowUs - this.#roundEndedUs, this.#nowUs - this.#roundBeganUs);
  }

  #tellAdopted(adoptedBytes: number): void {
    const { leader, survey } = this.#exchange;
    const pauseMs = Math.round((this.#nowUs - leader.beganUs) / 1000);
    const tookMs = Math.round((this.#nowUs - survey.beganUs) / 1000);
    const bytes = survey.sentBytes + adoptedBytes;
    this.#around.event(
      'state-sent',
      `State sent to ${this.#around.name(this.#loop.joining ?? this.#around.self)}: ${(bytes / 1e6).toFixed(1)} MB in ${tookMs} ms, for ${pauseMs} ms of which the guest stood`,
      { bytes, tookMs, pauseMs },
    );
  }

  event(name: RoundEvent, replica: ReplicaId, index: number): void {
    const text = eventText(name, this.#around.name(replica), index);
    if (name === 'state-loaded') this.#around.noteGuestReady(); // Only a guest that is ready is transferred.
    if (name === 'serving') this.#around.serves(index as LogIndex);
    else if (text !== undefined) this.#around.event(name, text, { index });
  }
}

/** Undefined: told with more to it elsewhere. */
function eventText(name: RoundEvent, replica: string, index: number): string | undefined {
  switch (name) {
    case 'serving-ended':
      return `Term ${index} is led by another replica`;
    case 'left-behind':
      return 'The log names this guest no longer: it asks for state';
    case 'state-loaded':
      return `State of record ${index} loaded`;
    case 'protected':
      return `${replica} executes from record ${index}`;
    case 'degraded':
      return `${replica} no longer executes: it has ended or stands still`;
    case 'transfer-given-up':
      return `${replica} takes no state for ${times.stallUs / 1e6} s`;
    case 'serving':
    case 'state-sent':
      return undefined;
  }
}

function differenceText(index: number, unionPages: number, pages: readonly number[]): string {
  const first = pages.slice(0, 8).map((page) => `0x${page.toString(16)}`);
  return `After record ${index} ${pages.length} of ${unionPages} pages differ: ${first.join(' ')}`;
}
