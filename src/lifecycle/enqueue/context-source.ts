import { BildadConfigError } from '../../job/errors.js';
import { typeName } from '../../options/reader.js';

/** Many contexts: all at hand, or read as they are needed. */
export type ContextSource = readonly unknown[] | Iterable<unknown> | AsyncIterable<unknown>;

/** @throws BildadConfigError */
export function checkSource(contexts: unknown): asserts contexts is ContextSource {
  if (typeof contexts === 'object' && contexts !== null) {
    const { [Symbol.iterator]: one, [Symbol.asyncIterator]: other } = contexts as Partial<
      Iterable<unknown> & AsyncIterable<unknown>
    >;
    if (typeof one === 'function' || typeof other === 'function') return;
  }
  throw new BildadConfigError(
    'contexts',
    `must be an array, an iterable or an async iterable of contexts, not ${typeName(contexts)}`,
  );
}
