/** What replicas say to each other beside the log: the kinds of message on the transport. */
export const MailKind = {
  /** A control message of the Falcon core. */
  falcon: 1,
  /** Backup to leader: executed all rounds up to this index. u64 index. */
  executed: 2,
  /** Both ways: dirty bitmap at a verification. u64 index, bitmap. */
  bitmap: 3,
  /** Backup to leader: root over the union at a verification. u64 index, u64 pages, 32 bytes. */
  root: 4,
  /** Leader to backup: send the page hashes of that verification. u64 index. */
  hashesWanted: 5,
  /** Backup to leader: a part of them. u64 index, u64 first page of the list, hashes. */
  hashes: 6,
  /** Backup to leader: a fresh guest waits for its state. u64 incarnation. */
  stateWanted: 7,
  /** Leader to backup: pages follow, while its guest runs on. */
  stateAhead: 14,
  /** Leader to backup: the rest follows, as it is after a record. u64 index, virtual ns, deliver tail and head. */
  stateBegin: 8,
  /** Leader to backup: u64 block, u64 first page, page contents. */
  statePages: 9,
  /** Leader to backup: u64 offset, part of the device state. */
  stateDevice: 10,
  /** Leader to backup: all sent. u64 device bytes, u64 checksum. */
  stateEnd: 11,
  /** Backup to leader: loaded. u64 index. */
  stateLoaded: 12,
  /** Backup to leader: hash of what its guest changed up to a verification. u64 index, 32 bytes. */
  fingerprint: 13,
  /** Both ways: a message of a round's exchange, see core/rounds/exchange-message.ts. */
  exchange: 15,
  /** To the leader: this replica's guest has ended. u64 incarnation. */
  guestLost: 16,
} as const;
