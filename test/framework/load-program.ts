/**
 * The frame of a load program, a process of its own so that it can run inside a network namespace: prints "serving"
 * once every client has had a reply; when its stdin ends, lets the operations under way end and prints one line of
 * JSON, a `LoadReport`. `LoadProcess` is the other side.
 */

/** What the clients saw. */
export interface LoadReport {
  readonly operations: number;
  /** Broken connections and replies that make no sense, in words. */
  readonly errors: readonly string[];
  /** Values read that were not the last acknowledged, in words. */
  readonly wrongValues: readonly string[];
  /** Longest time from a request to its reply on any connection, ms. */
  readonly longestReplyMs: number;
  readonly medianReplyMs: number;
  readonly p99ReplyMs: number;
}

/** One client on one connection. */
export interface LoadClient {
  /** Replies so far. */
  readonly operations: number;
  readonly errors: readonly string[];
  readonly wrongValues: readonly string[];
  /** Time of each reply, ms. */
  readonly replyMs: readonly number[];
  /** Resolves once the client has ended: after `stop`, or because its connection broke. */
  run(): Promise<void>;
  /** Ends after the operation under way. */
  stop(): void;
}

/** Runs the clients until stdin ends; never returns. */
export async function runLoad(clients: readonly LoadClient[]): Promise<never> {
  const runs = Promise.all(clients.map((client) => client.run()));
  const announce = setInterval(() => {
    if (!clients.every((client) => client.operations > 0)) return;
    clearInterval(announce);
    process.stdout.write('serving\n');
  }, 10);
  const stdinEnds = new Promise<void>((resolve) => process.stdin.once('end', resolve));
  process.stdin.resume();
  // Whoever waits for these clients to do something would wait for ever, and should see why.
  void runs.then(() => {
    for (const fault of clients.flatMap(({ errors, wrongValues }) => [...errors, ...wrongValues]))
      console.error(fault);
  });
  await stdinEnds;
  for (const client of clients) client.stop();
  await runs;
  clearInterval(announce);
  const report = reportOf(clients);
  await new Promise((resolve) => process.stdout.write(`${JSON.stringify(report)}\n`, resolve));
  process.exit(0);
}

function reportOf(clients: readonly LoadClient[]): LoadReport {
  const replyMs = clients.flatMap((client) => client.replyMs).sort((left, right) => left - right);
  return {
    operations: clients.reduce((sum, client) => sum + client.operations, 0),
    errors: clients.flatMap((client) => client.errors),
    wrongValues: clients.flatMap((client) => client.wrongValues),
    longestReplyMs: replyMs.at(-1) ?? 0,
    medianReplyMs: replyMs[replyMs.length >> 1] ?? 0,
    p99ReplyMs: replyMs[Math.floor(replyMs.length * 0.99)] ?? 0,
  };
}
