import { describe, expect, it } from 'vitest';
import type { ReplicaId } from '../ids.ts';
import { refusalText } from './control-refusal.ts';

describe('the text of a refusal', () => {
  it.each(['malformed', 'protocol version', 'cluster id', 'replica id', 'duplicate replica id'] as const)(
    'names the replica and what to do: %s',
    (refusal) => {
      const text = refusalText(refusal, 4 as ReplicaId);
      expect(text).toMatch(/^[A-Z].*\b4\b/);
      expect(text).toMatch(/: (run|see|end) /);
      expect(text).not.toMatch(/\.$/);
    },
  );
});
