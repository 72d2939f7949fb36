/** Virtual time: events run in the order of their times, those of one time in the order they were added. */

/** A run of a few virtual seconds that needs more than this goes in circles. */
const EVENTS_MAX = 3_000_000;

interface Event {
  readonly atUs: number;
  readonly sequence: number;
  readonly run: () => void;
}

export class EventQueue {
  nowUs = 0;
  events = 0;
  #sequence = 0;
  readonly #heap: Event[] = [];

  after(delayUs: number, run: () => void): void {
    this.at(this.nowUs + delayUs, run);
  }

  at(atUs: number, run: () => void): void {
    const heap = this.#heap;
    // Whole microseconds: what is due at a time is then due when that time has come, rounding or not.
    const event = { atUs: Math.max(Math.ceil(atUs), this.nowUs), sequence: this.#sequence++, run };
    let position = heap.length;
    heap.push(event);
    while (position > 0) {
      const parent = (position - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !earlier(event, above)) break;
      heap[position] = above;
      position = parent;
    }
    heap[position] = event;
  }

  runUntil(endUs: number): void {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atUs > endUs) break;
      this.#removeFirst();
      this.nowUs = next.atUs;
      if (++this.events > EVENTS_MAX)
        throw new Error(`More than ${EVENTS_MAX} events: the run goes in circles`);
      next.run();
    }
    this.nowUs = endUs;
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let position = 0;
    for (;;) {
      let child = 2 * position + 1;
      const left = heap[child];
      if (left === undefined) break;
      const right = heap[child + 1];
      let least = left;
      if (right !== undefined && earlier(right, left)) {
        least = right;
        child++;
      }
      if (!earlier(least, last)) break;
      heap[position] = least;
      position = child;
    }
    heap[position] = last;
  }
}

function earlier(one: Event, other: Event): boolean {
  return one.atUs < other.atUs || (one.atUs === other.atUs && one.sequence < other.sequence);
}
