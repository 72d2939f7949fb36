/** What a VM boots from, as an operator names it. */
import { buildImage, describeOwnKernel, findImage, type Image } from '../images/index.ts';
import { folders } from '../vmm/index.ts';

const imageDefault = 'memcached';

interface NamedGuest {
  readonly image?: string | undefined;
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  readonly append?: string | undefined;
}

/** The kernel that was given, or the image by its name, built first if it is not there yet. */
export async function findGuest(
  { image = imageDefault, kernel, initrd, append }: NamedGuest,
  report: (text: string) => void,
): Promise<Image> {
  if (kernel !== undefined)
    return describeOwnKernel({
      kernel,
      ...(initrd === undefined ? {} : { initrd }),
      ...(append === undefined ? {} : { kernelArguments: append.split(' ').filter((word) => word !== '') }),
    });
  const cacheFolder = folders().cache;
  try {
    return await findImage(image, cacheFolder);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'GAIA_IMAGE_NOT_BUILT')) throw error;
    report(`building image ${image}`);
    return buildImage(image, { cacheFolder });
  }
}
