import { BildadConfigError } from '../../job/errors.js';
import { kindOf } from '../../options/option-values.js';

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
    'an array, an iterable or an async iterable of contexts',
    kindOf(contexts),
  );
}
