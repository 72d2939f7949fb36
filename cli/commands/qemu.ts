/** `gaia-vm qemu build|info|path`: the patched QEMU of this gaia-vm. */
import type { Argv, CommandModule } from 'yargs';
import {
  buildQemu,
  configureFlags,
  expectedBuildId,
  folders,
  installedBuilds,
  requireQemu,
  type BuildProgress,
} from '../../vmm/index.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, renderTable, withOutputOption, type OutputFormat } from '../output.ts';
import { progressBar, withProgress } from '../progress.ts';
import { UsageError } from '../usage-error.ts';

interface BuildArguments {
  readonly output: OutputFormat;
  readonly jobs: number | undefined;
  readonly update: boolean;
  readonly force: boolean;
}

const buildCommand: CommandModule<object, BuildArguments> = {
  command: 'build',
  describe: "Build it from Debian's source, unless that is done already",
  builder: (yargs) =>
    withOutputOption(yargs)
      .option('jobs', { alias: 'j', type: 'number', describe: 'Compilers at a time (default: one per core)' })
      .option('update', {
        type: 'boolean',
        default: false,
        describe: 'Ask Debian for a newer security update and build that',
      })
      .option('force', { type: 'boolean', default: false, describe: 'Build again even if nothing changed' })
      .check(({ jobs }) => {
        if (jobs !== undefined && !(Number.isInteger(jobs) && jobs >= 1))
          throw new UsageError('--jobs takes a whole number from 1');
        return true;
      })
      .example('$0 qemu build', 'build what is missing, about 2 minutes on 2 cores')
      .example('$0 qemu build --update', "take Debian's newest security update"),
  handler: async ({ output, jobs, update, force }) => {
    const built = await interruptible(
      async (signal) =>
        await withProgress('patched QEMU', async (report) => {
          return await buildQemu({
            cacheFolder: folders().cache,
            update,
            force,
            signal,
            ...(jobs === undefined ? {} : { jobs }),
            onProgress: (progress) => report(describeProgress(progress)),
          });
        }),
    );
    printDocument(output, { qemu: built }, () => `QEMU build ${built.buildId} is ready: ${built.file}`);
  },
};

function describeProgress(progress: BuildProgress): string {
  if (progress.total === 0) return progress.text;
  return `${progressBar(progress.done, progress.total)} ${progress.text.slice(0, 60)}`;
}

const infoCommand: CommandModule<object, { readonly output: OutputFormat }> = {
  command: 'info',
  describe: 'Tell what it is made of and which builds are installed',
  builder: (yargs) => withOutputOption(yargs).example('$0 qemu info -o json', 'the same for scripts'),
  handler: async ({ output }) => {
    const { cache } = folders();
    const used = await requireQemu().catch(() => undefined);
    const builds = installedBuilds(cache);
    const document = {
      cacheFolder: cache,
      usable: used !== undefined,
      file: used?.file ?? null,
      buildId: used?.buildId ?? null,
      sourceVersion: used?.sourceVersion ?? null,
      verified: used?.verified ?? null,
      patches: used?.patches ?? [],
      /** What a build made now would be called; null before the first download. */
      expectedBuildId: expectedBuildId(cache) ?? null,
      configureFlags: configureFlags.map(({ flag, why }) => ({ flag, why })),
      installed: builds,
    };
    printDocument(output, document, () =>
      [
        renderTable([
          ['in use', used === undefined ? 'none: run "gaia-vm qemu build"' : used.file],
          ['build', used?.buildId ?? '-'],
          ['source', used?.sourceVersion ?? '-'],
          ['origin', used?.verified ?? '-'],
          ['patches', String(used?.patches.length ?? '-')],
        ]),
        '',
        renderTable([['CONFIGURE FLAG', 'WHY'], ...configureFlags.map(({ flag, why }) => [flag, why])]),
        '',
        renderTable([
          ['INSTALLED', 'SOURCE', 'BUILT', 'SECONDS'],
          ...builds.map((build) => [
            build.buildId,
            build.sourceVersion,
            build.builtAt,
            String(build.buildSeconds),
          ]),
        ]),
      ].join('\n'),
    );
  },
};

const pathCommand: CommandModule = {
  command: 'path',
  describe: 'Print the file of the build in use, checked',
  builder: (yargs) => yargs.example('$($0 qemu path) --version', 'run it by hand'),
  handler: async () => {
    const { file } = await requireQemu();
    process.stdout.write(`${file}\n`);
  },
};

export const qemuCommand: CommandModule = {
  command: 'qemu',
  describe: 'Build and inspect the patched QEMU',
  builder: (yargs): Argv =>
    yargs
      .command(buildCommand)
      .command(infoCommand)
      .command(pathCommand)
      .demandCommand(1, 'Which of build, info and path?'),
  handler: () => undefined,
};
