/** Turns Ctrl-C and a service manager's TERM into an abort that long work can act on in good order. */

/** The operator ended the command; what was done so far is kept and the next run carries on. */
export class InterruptedError extends Error {
  readonly signalNumber: number;

  constructor(signalName: 'SIGINT' | 'SIGTERM') {
    super('Interrupted: run the command again to carry on');
    this.name = 'InterruptedError';
    this.signalNumber = signalName === 'SIGINT' ? 2 : 15;
  }
}

/** Runs `work` with a signal that aborts, with an `InterruptedError`, when the operator wants to end it. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const abort = (name: 'SIGINT' | 'SIGTERM'): void => controller.abort(new InterruptedError(name));
  // Not once(): whoever else listens and finds itself alone would end the process before we could.
  process.on('SIGINT', abort);
  process.on('SIGTERM', abort);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', abort);
    process.off('SIGTERM', abort);
  }
}
