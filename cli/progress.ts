/**
 * Shows on stderr what long work is doing: a live line on a terminal, else a plain line a second at most, so
 * that logs stay readable and stdout holds the result only.
 */
import { Listr, ListrLogger, ProcessOutput, type ListrDefaultRendererLogLevels } from 'listr2';

const plainIntervalMs = 1000;

/** Runs `work`; each text it reports replaces the one before. */
export async function withProgress<T>(
  title: string,
  work: (report: (text: string) => void) => Promise<T>,
): Promise<T> {
  if (!process.stderr.isTTY) return await withPlainLines(title, work);
  let result: { readonly value: T } | undefined;
  const logger = new ListrLogger<ListrDefaultRendererLogLevels>({
    processOutput: new ProcessOutput(process.stderr, process.stderr),
  });
  const list = new Listr(
    [
      {
        title,
        task: async (_context, task) => {
          const value = await work((text) => {
            task.output = text;
          });
          result = { value };
        },
      },
    ],
    {
      // The caller reports the failure; the list would print it a second time.
      rendererOptions: { logger, showErrorMessage: false, collapseErrors: false },
      registerSignalListeners: false,
    },
  );
  await list.run();
  if (result === undefined) throw new Error(`"${title}" ended without a result`);
  return result.value;
}

/** The newest text of each interval is printed, so that what takes long is named while it lasts. */
async function withPlainLines<T>(
  title: string,
  work: (report: (text: string) => void) => Promise<T>,
): Promise<T> {
  let pending: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  const print = (): void => {
    timer = undefined;
    if (pending === undefined) return;
    process.stderr.write(`${title}: ${pending}\n`);
    pending = undefined;
    timer = setTimeout(print, plainIntervalMs);
  };
  try {
    return await work((text) => {
      pending = text;
      if (timer === undefined) print();
    });
  } finally {
    clearTimeout(timer);
  }
}

/** `[#####-----] 45 % 412/920`, as wide as asked. */
export function progressBar(done: number, total: number, width = 24): string {
  const filled = total === 0 ? 0 : Math.floor((done / total) * width);
  const percent = total === 0 ? 0 : Math.floor((done / total) * 100);
  return `[${'#'.repeat(filled)}${'-'.repeat(width - filled)}] ${percent} % ${done}/${total}`;
}
