/** class-transformer keeps its metadata storage out of its index and ships no types for this path. */
declare module 'class-transformer/cjs/storage.js' {
  export { defaultMetadataStorage } from 'class-transformer/types/storage.js';
}
