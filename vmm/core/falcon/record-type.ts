/** What a record of the Falcon log says. The core reads those below 16 itself; it hands all of them to the applier. */
export const RecordType = {
  /** First record of a term; payload: the executing set that holds from here on. */
  termStart: 1,
  /** The executing set changes; payload: the new set. */
  executingSet: 2,
  /** Nothing but its own commit: shows that a majority still follows. */
  noOperation: 3,
  /** The members change by one; payload: the new list. */
  membership: 4,
  /** From here on the numbers belong to whoever proposes. */
  firstOfApplication: 16,
} as const;
