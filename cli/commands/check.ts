/** `gaia-vm check`: names every blocker and every limit of this machine before a VM is started on it. */
import type { CommandModule } from 'yargs';
import { findImage } from '../../images/index.ts';
import { checkMachine, folders, selfCommand, type CheckLine, type Verdict } from '../../vmm/index.ts';
import { exitCode } from '../exit-code.ts';
import {
  paint,
  printDocument,
  renderTable,
  withOutputOption,
  type OutputFormat,
  type Style,
} from '../output.ts';

interface CheckArguments {
  readonly output: OutputFormat;
  readonly image: string;
}

const styles: Readonly<Record<Verdict, Style>> = { ok: 'green', limit: 'yellow', blocker: 'red' };

export const checkCommand: CommandModule<object, CheckArguments> = {
  command: 'check',
  describe: 'Name every blocker and every limit of this machine',
  builder: (yargs) =>
    withOutputOption(yargs)
      .option('image', {
        type: 'string',
        default: 'memcached',
        describe: 'The guest image that must be there',
      })
      .example('$0 check', 'exit code 0 when VMs can start here, 6 when something keeps them from it')
      .example('$0 check -o json', 'the same for scripts'),
  handler: async ({ output, image }) => {
    const lines = [...(await checkMachine()), await checkImage(image)];
    const count = (verdict: Verdict): number => lines.filter((line) => line.verdict === verdict).length;
    const blockers = count('blocker');
    const document = { usable: blockers === 0, blockers, limits: count('limit'), checks: lines };
    printDocument(output, document, () => renderLines(lines, blockers));
    if (blockers > 0) process.exitCode = exitCode.brokenEnvironment;
  },
};

async function checkImage(name: string): Promise<CheckLine> {
  try {
    const image = await findImage(name, folders().cache);
    return { name: `image ${name}`, verdict: 'ok', value: image.kernel ?? image.disk ?? 'complete' };
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || !String(error.code).startsWith('GAIA_'))
      throw error;
    const notBuilt = error.code === 'GAIA_IMAGE_NOT_BUILT';
    return {
      name: `image ${name}`,
      verdict: 'blocker',
      value: notBuilt ? 'not built yet' : error.message,
      remedy: notBuilt ? `run "${selfCommand()} image build ${name}"` : 'see "gaia-vm image list"',
    };
  }
}

function renderLines(lines: readonly CheckLine[], blockers: number): string {
  const rows = lines.flatMap((line) => [
    [line.verdict, line.name, line.value],
    ...(line.remedy === undefined ? [] : [['', '', `→ ${line.remedy}`]]),
  ]);
  const table = renderTable(rows, (_row, column, cell) => {
    const style = column === 0 ? styles[cell.trim() as Verdict] : undefined;
    return style === undefined ? cell : paint(style, cell);
  });
  const limits = lines.filter((line) => line.verdict === 'limit').length;
  const verdict =
    blockers > 0
      ? paint('red', `${blockers} ${blockers === 1 ? 'thing keeps' : 'things keep'} VMs from starting here`)
      : paint('green', 'VMs can start here');
  return `${table}\n\n${verdict}${limits === 0 ? '' : `, ${limits} ${limits === 1 ? 'limit' : 'limits'}`}`;
}
