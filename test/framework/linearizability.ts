/**
 * Is a history of one register linearizable: does one order of its operations exist that respects real time and in
 * which every read returns the value written last? Wing and Gong's search (1993) with Lowe's memory of visited states
 * (2017): exponential only in how many operations overlap.
 */

/** One operation as its client saw it; times on one clock, in any unit. */
export interface RegisterOperation {
  readonly kind: 'read' | 'write';
  /** Read or written; null: the register was empty. */
  readonly value: string | null;
  readonly invokedAt: number;
  /** Infinity: no reply came, so it may have happened or not. */
  readonly repliedAt: number;
}

/** Undefined when it is; otherwise the operation that no order can place, in words. */
export function whyNotLinearizable(history: readonly RegisterOperation[]): string | undefined {
  // A read without a reply tells nothing.
  const operations = history
    .filter((operation) => operation.kind === 'write' || operation.repliedAt !== Infinity)
    .sort((left, right) => left.invokedAt - right.invokedAt);
  const placed = new Array<boolean>(operations.length).fill(false);
  const visited = new Set<string>();
  let furthest = 0;

  /** Places everything from the first unplaced operation on; `value` is what the register holds. */
  const place = (first: number, value: string | null): boolean => {
    while (first < operations.length && placed[first] === true) first++;
    furthest = Math.max(furthest, first);
    if (
      operations.slice(first).every((operation, at) => placed[first + at] === true || isOptional(operation))
    )
      return true;
    const state = stateKey(first, placed, value);
    if (visited.has(state)) return false;
    visited.add(state);
    // Whoever is next must have been invoked before the first reply among those that are left.
    let deadline = Infinity;
    for (let at = first; at < operations.length; at++) {
      const operation = operations[at];
      if (operation === undefined || operation.invokedAt > deadline) break;
      if (placed[at] === true) continue;
      deadline = Math.min(deadline, operation.repliedAt);
    }
    for (let at = first; at < operations.length; at++) {
      const operation = operations[at];
      if (operation === undefined || operation.invokedAt > deadline) break;
      if (placed[at] === true || (operation.kind === 'read' && operation.value !== value)) continue;
      placed[at] = true;
      if (place(first, operation.kind === 'write' ? operation.value : value)) return true;
      placed[at] = false;
    }
    return false;
  };

  if (place(0, null)) return undefined;
  return `no order places ${JSON.stringify(operations[furthest])}, operation ${furthest} of ${operations.length}`;
}

/** A write without a reply may be left out. */
function isOptional(operation: RegisterOperation): boolean {
  return operation.kind === 'write' && operation.repliedAt === Infinity;
}

function stateKey(first: number, placed: readonly boolean[], value: string | null): string {
  let last = placed.length - 1;
  while (last >= first && placed[last] !== true) last--;
  let bits = '';
  for (let at = first; at <= last; at++) bits += placed[at] === true ? '1' : '0';
  return `${first} ${bits} ${value ?? ''}`;
}
