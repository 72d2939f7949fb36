/**
 * Shows how the steps come along, on stderr: a few lines that renew themselves on a terminal; elsewhere a
 * line when a step begins and ends, and now and then one in between.
 */
import { styleText } from 'node:util';

const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const redrawMs = 100;
const plainIntervalMs = 10_000;

/** @typedef {'running' | 'done' | 'current' | 'failed' | 'stopped'} RowState */
/** @typedef {{ title: string; state: RowState; text: string; startedAt: number; seconds: number; printedAt: number }} Row */

export class Display {
  /** @param {NodeJS.WriteStream} stream */
  constructor(stream) {
    this.stream = stream;
    this.live = stream.isTTY === true && process.env.TERM !== 'dumb';
    this.coloured = this.live && (process.env.NO_COLOR ?? '') === '';
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    this.drawn = 0;
    this.frame = 0;
    /** @type {NodeJS.Timeout | undefined} */
    this.timer = undefined;
  }

  /** @param {string} id @param {string} title */
  begin(id, title) {
    const now = performance.now();
    this.rows.set(id, { title, state: 'running', text: '', startedAt: now, seconds: 0, printedAt: now });
    if (!this.live) this.stream.write(`set-up: ${title}: begins\n`);
    else this.timer ??= setInterval(() => this.draw(), redrawMs);
  }

  /** @param {string} id @param {string} text what the step is doing */
  update(id, text) {
    const row = this.rows.get(id);
    if (row === undefined || row.state !== 'running') return;
    row.text = text;
    const now = performance.now();
    if (this.live || now - row.printedAt < plainIntervalMs) return;
    row.printedAt = now;
    this.stream.write(`set-up: ${row.title}: ${text}\n`);
  }

  /** @param {string} id @param {string} title @param {Exclude<RowState, 'running'>} state @param {string} text */
  end(id, title, state, text) {
    const row = this.rows.get(id) ?? { title, startedAt: performance.now(), printedAt: 0 };
    const seconds = (performance.now() - row.startedAt) / 1000;
    this.rows.set(id, { ...row, title, state, text, seconds });
    if (this.live) this.draw();
    else
      this.stream.write(
        `set-up: ${title}: ${text}${state === 'current' ? '' : `, ${seconds.toFixed(1)} s`}\n`,
      );
  }

  /** Leaves the lines as they are; what is printed next goes below. */
  close() {
    clearInterval(this.timer);
    this.timer = undefined;
    if (this.live) this.draw();
    this.drawn = 0;
    this.rows.clear();
  }

  draw() {
    this.frame += 1;
    const width = (this.stream.columns || 80) - 1;
    const titleWidth = Math.max(...[...this.rows.values()].map(({ title }) => title.length));
    const lines = [...this.rows.values()].map((row) => {
      const seconds = row.state === 'running' ? (performance.now() - row.startedAt) / 1000 : row.seconds;
      const time = row.state === 'current' ? '' : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`.padStart(7);
      const line = `${row.title.padEnd(titleWidth)} ${time.padEnd(7)} ${row.text}`.slice(0, width - 2);
      return `${this.mark(row.state)} ${line}`;
    });
    const up = this.drawn > 0 ? `\x1b[${this.drawn}A` : '';
    this.stream.write(`${up}${lines.map((line) => `\x1b[2K${line}\n`).join('')}`);
    this.drawn = lines.length;
  }

  /** @param {RowState} state */
  mark(state) {
    const marks = {
      running: ['cyan', frames[this.frame % frames.length] ?? ''],
      done: ['green', '✔'],
      current: ['green', '✔'],
      failed: ['red', '✖'],
      stopped: ['yellow', '■'],
    };
    const [colour = '', text = ''] = marks[state];
    return this.coloured ? styleText(/** @type {'red'} */ (colour), text) : text;
  }
}
