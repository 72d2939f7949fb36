/** A running cluster of a peer, seen through one client. */
export interface PeerCluster {
  /** Resolves once the cluster has agreed on the value. */
  put(value: Uint8Array): Promise<void>;
  stop(): Promise<void>;
}
