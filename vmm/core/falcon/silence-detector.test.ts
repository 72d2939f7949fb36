import { describe, expect, it } from 'vitest';
import { DEFAULT_TIMES } from './settings.ts';
import { SilenceDetector } from './silence-detector.ts';

const { silenceUsMin, silenceUsMax, heartbeatIntervalUs } = DEFAULT_TIMES;

/** Hears `beats` heartbeats, each as late as `lateUs` says. */
function listen(detector: SilenceDetector, beats: number, lateUs: (beat: number) => number = () => 0): void {
  let nowUs = 0;
  detector.restart();
  for (let beat = 0; beat < beats; beat++) {
    detector.heard(nowUs);
    nowUs += heartbeatIntervalUs + lateUs(beat);
  }
}

describe('the silence detector', () => {
  it('comes down to the least patience where every heartbeat is in time', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    listen(detector, 5_000);
    expect(detector.timeoutUs).toBe(silenceUsMin);
  });

  it('waits three times as long as the longest silence of late, for thousands of heartbeats', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    listen(detector, 5_000);
    listen(detector, 1_000, (beat) => (beat === 10 ? 60_000 : 0));
    expect(detector.timeoutUs).toBeGreaterThan(150_000);
    listen(detector, 20_000);
    expect(detector.timeoutUs).toBe(silenceUsMin);
  });

  it('waits longer where heartbeats come irregularly, though none is ever very late', () => {
    const even = new SilenceDetector(DEFAULT_TIMES);
    const odd = new SilenceDetector(DEFAULT_TIMES);
    listen(even, 5_000, () => 8_000);
    listen(odd, 5_000, (beat) => (beat % 2) * 16_000);
    expect(odd.timeoutUs).toBeGreaterThan(even.timeoutUs + 50_000);
  });

  it('takes its own waiting for a processor as a sign that others wait too', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    listen(detector, 5_000);
    detector.heldUp(40_000);
    expect(detector.timeoutUs).toBe(120_000);
  });

  it('is never patient without end: after ten seconds of standstill no more than the most', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    detector.heldUp(10_000_000);
    expect(detector.timeoutUs).toBe(silenceUsMax);
    listen(detector, 15_000);
    expect(detector.timeoutUs).toBeLessThan(2 * silenceUsMin);
  });

  it('draws nothing from the silence between two leaders', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    listen(detector, 5_000);
    detector.restart();
    detector.heard(9_000_000);
    expect(detector.timeoutUs).toBe(silenceUsMin);
  });

  it('forgets how long starting and loading state held everybody up, once two guests execute', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    listen(detector, 20, (beat) => (beat === 10 ? 400_000 : 0));
    expect(detector.timeoutUs).toBeGreaterThan(silenceUsMax - 5_000);
    listen(detector, 200);
    detector.settled();
    expect(detector.timeoutUs).toBeLessThan(2 * silenceUsMin);
  });

  it('keeps what held anybody up in settled times, through a change of leaders and another load of state', () => {
    const detector = new SilenceDetector(DEFAULT_TIMES);
    detector.settled();
    listen(detector, 5_000);
    detector.heldUp(60_000);
    detector.unsettled();
    detector.heldUp(190_000);
    expect(detector.timeoutUs).toBe(570_000);
    detector.settled();
    expect(detector.timeoutUs).toBe(180_000);
  });
});
