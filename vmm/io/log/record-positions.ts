/**
 * Where records lie in the segments: one row now and then, as the records between are found by walking on. After a
 * truncation the first record that is written has a row, so that no walk begins before what was cut off and passes it.
 */
const spacingBytes = 64 * 1024;

export interface RecordPosition {
  readonly index: number;
  readonly sequence: number;
  readonly offset: number;
}

export class RecordPositions {
  /** Invariant: ascending by index, and by place. */
  #rows: RecordPosition[] = [];
  #forced = true;

  note(index: number, sequence: number, offset: number): void {
    const last = this.#rows.at(-1);
    const near = last?.sequence === sequence && offset - last.offset < spacingBytes && !this.#forced;
    if (near) return;
    this.#forced = false;
    this.#rows.push({ index, sequence, offset });
  }

  truncateTo(index: number): void {
    while ((this.#rows.at(-1)?.index ?? -1) > index) this.#rows.pop();
    this.#forced = true;
  }

  dropBelow(sequence: number): void {
    const kept = this.#rows.findIndex((row) => row.sequence >= sequence);
    this.#rows = kept === -1 ? [] : this.#rows.slice(kept);
  }

  /** The nearest row at or before this record. */
  find(index: number): RecordPosition | undefined {
    let low = 0;
    let high = this.#rows.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#rows[middle]?.index ?? Infinity) <= index) low = middle + 1;
      else high = middle;
    }
    return this.#rows[low - 1];
  }
}
