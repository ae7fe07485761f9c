import type { EnqueueOptions } from '../../lifecycle/enqueue/enqueue-options.js';
import { BildadConfigError } from '../../job/errors.js';

/** Names and keys belong to a single job. @throws BildadConfigError */
export function refuseKeys(options: object): void {
  for (const name of ['jobRunIdentifier', 'unique', 'debounce', 'throttle'])
    if (options && name in options)
      throw new BildadConfigError(
        name,
        'is not supported by enqueueJobs: it belongs to a single job',
      );
}

/** `enqueueAndRunJob` cannot delay a job. @throws BildadConfigError */
export function refuseLater(options: EnqueueOptions): void {
  const problem = 'delays the job, which enqueueAndRunJob runs at once: use enqueueJob instead';
  const { debounce, unique } = options ?? {};
  if (debounce !== undefined) throw new BildadConfigError('debounce', problem);
  if (unique?.onConflict === 'keepLatest')
    throw new BildadConfigError('unique.onConflict', `'keepLatest' ${problem}`);
}
