import type { EnqueueOptions } from '../../lifecycle/enqueue/enqueue-options.js';
import { BildadConfigError } from '../../job/errors.js';

/** A name or a key is one job's. @throws BildadConfigError */
export function refuseKeys(options: object): void {
  for (const name of ['jobRunIdentifier', 'unique', 'debounce', 'throttle'])
    if (options && name in options)
      throw new BildadConfigError(
        name,
        'none for many jobs',
        (options as Record<string, unknown>)[name],
      );
}

/** What is to run now cannot be kept for later. @throws BildadConfigError */
export function refuseLater(options: EnqueueOptions): void {
  const expected = 'none that keeps the job for later; use enqueueJob';
  const { debounce, unique } = options ?? {};
  if (debounce !== undefined) throw new BildadConfigError('debounce', expected, debounce);
  if (unique?.onConflict === 'keepLatest')
    throw new BildadConfigError('unique.onConflict', expected, 'keepLatest');
}
