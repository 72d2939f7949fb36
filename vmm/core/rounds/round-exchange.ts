/**
 * One replica's end of the rounds' exchange, in both roles: which messages go to whom, and how it ended. A state
 * machine without I/O: the guest is injected, messages are bytes that the caller carries, time is the caller's.
 */
import type { ReplicaId } from '../ids.ts';
import type { CommonVersions } from './common-versions.ts';
import { ExchangeBackup, type Standing } from './exchange-backup.ts';
import type { ExchangeGuest } from './exchange-guest.ts';
import { ExchangeLeader, type ExchangeAim } from './exchange-leader.ts';
import { MerkleRefusal } from '../../../merkle/refusal.ts';
import { ExchangeMemory, type ExchangeSettings } from './exchange-memory.ts';
import { MessageType, openMessage, type ExchangeMessage } from './exchange-message.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import type { ExchangeOutcome } from './round-report.ts';
import { SurveyBackup } from './survey-backup.ts';
import { SurveyLeader } from './survey-leader.ts';
import type { UnreconciledSet } from './unreconciled-set.ts';

const fromLeader: ReadonlySet<number> = new Set([
  MessageType.open,
  MessageType.compare,
  MessageType.stage,
  MessageType.end,
  MessageType.confirm,
]);

const ofSurveyor: ReadonlySet<number> = new Set([
  MessageType.surveyOpen,
  MessageType.surveyHashes,
  MessageType.surveyPages,
  MessageType.surveyEnd,
]);

export class RoundExchange {
  readonly set: UnreconciledSet;
  /** Last common versions, with one partner at a time. */
  readonly common: CommonVersions;
  readonly leader: ExchangeLeader;
  readonly backup: ExchangeBackup;
  /** Ahead of an exchange that brings a guest in: while this one runs on. */
  readonly survey: SurveyLeader;
  readonly #surveyed: SurveyBackup;
  readonly #settings: ExchangeSettings;
  #partner: ReplicaId | undefined;
  #leaderId: ReplicaId | undefined;
  /** With whom the common versions are, in whichever role. */
  #commonWith: ReplicaId | undefined;

  constructor(guest: ExchangeGuest, set: UnreconciledSet, settings: ExchangeSettings) {
    const memory = new ExchangeMemory(guest, set, settings);
    this.common = memory.common;
    this.set = set;
    this.#settings = settings;
    this.leader = new ExchangeLeader(memory, settings);
    this.backup = new ExchangeBackup(memory, settings);
    this.survey = new SurveyLeader(memory, settings);
    this.#surveyed = new SurveyBackup(memory, settings);
  }

  /** Who leads and in which term: all that belongs to another term is void. */
  enterTerm(term: number, leader: ReplicaId | undefined, leads: boolean): void {
    this.backup.enterTerm(term);
    this.#surveyed.enterTerm(term);
    this.#leaderId = leader;
    if (leads) {
      this.backup.abandon();
      this.#surveyed.abandon();
    } else this.abandon();
  }

  /** What this side leads is void. */
  abandon(): void {
    this.leader.abandon();
    this.survey.abandon();
  }

  /** With whom this leader's exchange or survey is under way. */
  get partner(): ReplicaId | undefined {
    return this.leader.underWay || this.survey.underWay ? this.#partner : undefined;
  }

  /** When something last came of what this side leads. */
  get progressUs(): number {
    return this.leader.underWay ? this.leader.progressUs : this.survey.progressUs;
  }

  tick(nowUs: number): void {
    this.leader.tick(nowUs);
    this.survey.tick(nowUs);
  }

  get deadlineUs(): number {
    return Math.min(this.leader.deadlineUs, this.survey.deadlineUs);
  }

  /** Finds out in which pages `partner`, which waits, differs, while this guest runs on. */
  beginSurvey(term: number, partner: ReplicaId, nowUs: number): void {
    this.#partner = partner;
    this.survey.begin(term, nowUs);
  }

  /** With whom the last one was, or is. */
  get lastPartner(): ReplicaId | undefined {
    return this.#partner;
  }

  begin(aim: ExchangeAim, partner: ReplicaId, nowUs: number): void {
    this.#partner = partner;
    this.#meet(partner);
    this.leader.begin(aim, nowUs);
  }

  #meet(other: ReplicaId): void {
    this.settleUp();
    if (other !== this.#commonWith) this.common.clear();
    this.#commonWith = other;
  }

  stand(standing: Standing | undefined, nowUs: number): void {
    this.settleUp();
    this.backup.stand(standing, nowUs);
  }

  /** `waits`: this guest stands and waits to be made equal. */
  receive(from: ReplicaId, bytes: Uint8Array, waits: boolean, nowUs: number): void {
    const message = openMessage(bytes, this.#settings.crc32c);
    if (message === undefined) return;
    if (fromLeader.has(message.type)) {
      if (from !== this.#leaderId) return;
      if (message.type === MessageType.open) this.#meet(from);
      this.backup.receive(message, nowUs);
    } else if (ofSurveyor.has(message.type)) {
      if (from === this.#leaderId) this.#takeSurveyor(message, waits);
    } else if (from === this.#partner) this.#takeAnswer(message, nowUs);
  }

  /** Where a surveyor says what cannot be, it finds that its survey is not known here. */
  #takeSurveyor(message: ExchangeMessage, waits: boolean): void {
    try {
      this.#surveyed.receive(message, waits);
    } catch (error) {
      if (!(error instanceof ExchangeRefusal || error instanceof MerkleRefusal)) throw error;
      this.#surveyed.abandon();
    }
  }

  #takeAnswer(message: ExchangeMessage, nowUs: number): void {
    if (!this.survey.underWay) {
      this.leader.receive(message, nowUs);
      return;
    }
    try {
      this.survey.receive(message, nowUs);
    } catch (error) {
      if (!(error instanceof ExchangeRefusal || error instanceof MerkleRefusal)) throw error;
      this.survey.abandon();
    }
  }

  /** To whom the message at hand goes; undefined: there is none. */
  get addressee(): ReplicaId | undefined {
    if (this.#led !== undefined) return this.#partner;
    return this.#followed === undefined ? undefined : this.#leaderId;
  }

  /** The message at hand, the same until `sent`. */
  peek(): Uint8Array | undefined {
    return (this.#led ?? this.#followed)?.peek();
  }

  sent(): void {
    (this.#led ?? this.#followed)?.sent();
  }

  /** Whoever has something to say as a leader. */
  get #led(): ExchangeLeader | SurveyLeader | undefined {
    if (this.leader.peek() !== undefined) return this.leader;
    return this.survey.peek() === undefined ? undefined : this.survey;
  }

  get #followed(): ExchangeBackup | SurveyBackup | undefined {
    if (this.backup.peek() !== undefined) return this.backup;
    return this.#surveyed.peek() === undefined ? undefined : this.#surveyed;
  }

  /** What could wait until an outcome was acted on. The guest must not go on before, nor another exchange begin. */
  settleUp(): void {
    this.leader.settleUp();
    this.backup.settleUp();
  }

  takeOutcome(): ExchangeOutcome | undefined {
    return this.leader.takeOutcome() ?? this.backup.takeOutcome();
  }
}
