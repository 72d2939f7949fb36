/** The public face of images/: recipes, the builder, and the description that a VM is started from. */

export {
  buildImage,
  defaultCacheFolder,
  findImage,
  listImages,
  type BuildOptions,
  type BuildProgress,
  type ImageListing,
} from './build-image.ts';
export { ImageError, type ImageErrorCode } from './error.ts';
export { loadImage, type Image } from './image.ts';
export { describeOwnDisk, describeOwnKernel, type OwnDisk, type OwnKernel } from './own-image.ts';
export { loadRecipe, type Recipe } from './recipe.ts';
