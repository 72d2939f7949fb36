/**
 * One replica's end of the rounds' exchange, in both roles: which messages go to whom, and how it ended. A state
 * machine without I/O: the guest is injected, messages are bytes that the caller carries, time is the caller's.
 */
import type { ReplicaId } from '../ids.ts';
import type { CommonVersions } from './common-versions.ts';
import { ExchangeBackup, type Standing } from './exchange-backup.ts';
import type { ExchangeGuest } from './exchange-guest.ts';
import { ExchangeLeader, type ExchangeAim } from './exchange-leader.ts';
import { ExchangeMemory, type ExchangeSettings } from './exchange-memory.ts';
import { MessageType, openMessage } from './exchange-message.ts';
import type { ExchangeOutcome } from './round-report.ts';
import type { UnreconciledSet } from './unreconciled-set.ts';

const fromLeader: ReadonlySet<number> = new Set([
  MessageType.open,
  MessageType.compare,
  MessageType.stage,
  MessageType.end,
  MessageType.confirm,
]);

export class RoundExchange {
  readonly set: UnreconciledSet;
  /** Last common versions, with one partner at a time. */
  readonly common: CommonVersions;
  readonly leader: ExchangeLeader;
  readonly backup: ExchangeBackup;
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
  }

  /** Who leads and in which term: all that belongs to another term is void. */
  enterTerm(term: number, leader: ReplicaId | undefined, leads: boolean): void {
    this.backup.enterTerm(term);
    this.#leaderId = leader;
    if (!leads) this.leader.abandon();
    else this.backup.abandon();
  }

  /** With whom this leader's exchange is under way. */
  get partner(): ReplicaId | undefined {
    return this.leader.underWay ? this.#partner : undefined;
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
    if (other !== this.#commonWith) this.common.clear();
    this.#commonWith = other;
  }

  stand(standing: Standing | undefined, nowUs: number): void {
    this.backup.stand(standing, nowUs);
  }

  receive(from: ReplicaId, bytes: Uint8Array, nowUs: number): void {
    const message = openMessage(bytes, this.#settings.crc32c);
    if (message === undefined) return;
    if (fromLeader.has(message.type)) {
      if (from !== this.#leaderId) return;
      if (message.type === MessageType.open) this.#meet(from);
      this.backup.receive(message, nowUs);
    } else if (from === this.#partner) this.leader.receive(message, nowUs);
  }

  /** To whom the message at hand goes; undefined: there is none. */
  get addressee(): ReplicaId | undefined {
    if (this.leader.peek() !== undefined) return this.#partner;
    return this.backup.peek() === undefined ? undefined : this.#leaderId;
  }

  /** The message at hand, the same until `sent`. */
  peek(): Uint8Array | undefined {
    return this.leader.peek() ?? this.backup.peek();
  }

  sent(): void {
    if (this.leader.peek() !== undefined) this.leader.sent();
    else this.backup.sent();
  }

  takeOutcome(): ExchangeOutcome | undefined {
    return this.leader.takeOutcome() ?? this.backup.takeOutcome();
  }
}
