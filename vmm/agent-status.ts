/** What an agent answers when it is asked how it is. */
import type { EngineStatus } from './engine-protocol.ts';
import type { MissingPeer } from './revival.ts';

export interface AgentStatus extends EngineStatus {
  readonly name: string;
  readonly agentPid: number;
  readonly qemuPid: number | null;
  /** How often QEMU was started since one has lasted for a minute. */
  readonly qemuStarts: number;
  /** Agents that do not run, as far as this one knows, and what is done about it. */
  readonly missing: readonly MissingPeer[];
  /** The last takeover by this replica, also by an earlier process of it. */
  readonly failover: Failover | null;
}

export interface Failover {
  readonly time: string;
  readonly from: number;
  readonly to: number;
  readonly term: number;
  /** Since the former leader was last heard. */
  readonly gapMs: number;
}
