/** `gaia-vm image build|list|show`: guest images made of Debian packages. */
import type { Argv, CommandModule } from 'yargs';
import { buildImage, findImage, listImages, type BuildProgress, type Image } from '../../images/index.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, renderTable, withOutputOption, type OutputFormat } from '../output.ts';
import { progressBar, withProgress } from '../progress.ts';

interface BuildArguments {
  readonly output: OutputFormat;
  readonly image: string;
  readonly refresh: boolean;
}

const buildCommand: CommandModule<object, BuildArguments> = {
  command: 'build <image>',
  describe: 'Build an image, unless that is done already',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'Name of an image, or path of a recipe file',
      })
      .option('refresh', {
        type: 'boolean',
        default: false,
        describe: 'Take the newest Debian packages and build again',
      })
      .example('$0 image build memcached', 'build the demo image, about 6 seconds')
      .example('$0 image build ./my-service.json', 'build an image of your own'),
  handler: async ({ output, image: name, refresh }) => {
    const image = await interruptible(
      async (signal) =>
        await withProgress(`image ${name}`, async (report) => {
          const onProgress = (progress: BuildProgress): void => report(describeProgress(progress));
          return await buildImage(name, { refresh, signal, onProgress });
        }),
    );
    printDocument(output, { image }, () => `Image ${image.name} is ready: ${image.initrd ?? ''}`);
  },
};

function describeProgress({ text, fraction }: BuildProgress): string {
  if (fraction === undefined || fraction === 1) return text;
  return `${text} ${progressBar(Math.round(fraction * 100), 100)}`;
}

const listCommand: CommandModule<object, { readonly output: OutputFormat }> = {
  command: 'list',
  describe: 'List the images and which of them are built',
  builder: (yargs) => withOutputOption(yargs).example('$0 image list -o json', 'the same for scripts'),
  handler: async ({ output }) => {
    const listings = await listImages();
    const images = listings.map(({ name, description, image }) => ({
      name,
      description,
      built: image !== undefined,
      memoryBytesMin: image?.memoryBytesMin ?? null,
    }));
    printDocument(output, { images }, () =>
      renderTable([
        ['IMAGE', 'BUILT', 'DESCRIPTION'],
        ...images.map(({ name, built, description }) => [name, built ? 'yes' : 'no', description]),
      ]),
    );
  },
};

const showCommand: CommandModule<object, { readonly output: OutputFormat; readonly image: string }> = {
  command: 'show <image>',
  describe: 'Tell what a built image is made of',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'Name of an image, or path of an image.json',
      })
      .example('$0 image show memcached', 'see its files, its port and its packages'),
  handler: async ({ output, image: name }) => {
    const image = await findImage(name);
    printDocument(output, { image }, () => describeImage(image));
  },
};

function describeImage(image: Image): string {
  return [
    renderTable([
      ['image', image.name],
      ['description', image.description],
      ['kernel', image.kernel ?? '-'],
      ['initrd', image.initrd ?? '-'],
      ['disk', image.disk ?? '-'],
      ['service', image.port === null ? '-' : `${image.protocol ?? 'tcp'} on port ${image.port}`],
      ['memory', `${image.memoryBytesMin / (1 << 20)} MiB at least`],
      ['ready marker', image.readyMarker ?? '-'],
    ]),
    '',
    renderTable([['PACKAGE', 'VERSION'], ...image.packages.map(({ name, version }) => [name, version])]),
  ].join('\n');
}

export const imageCommand: CommandModule = {
  command: 'image',
  describe: 'Build and inspect guest images',
  builder: (yargs): Argv =>
    yargs
      .command(buildCommand)
      .command(listCommand)
      .command(showCommand)
      .demandCommand(1, 'Which of build, list and show?'),
  handler: () => undefined,
};
