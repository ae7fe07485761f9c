import { toMilliseconds } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import { oneOf, refuseTogether, refuseUnknown, string } from '../../options/reader.js';
import type { KeyedAsk } from './unique-keys.sql.js';
import type { Carried } from './entry-envelope.js';
import type { EnqueueOptions } from './enqueue-options.js';

const WHERE = 'enqueue options';
const readConflict = oneOf('ignore', 'replace', 'reschedule', 'keepLatest', 'throw');
const readKey = string(500);

/** A key that a job is to be enqueued under. */
export interface Identity extends KeyedAsk {
  /** When the job is due, where the key decides that. */
  delayMs: number | null;
  throws: boolean;
}

/**
 * The key that the options name; null where they name none, as most do.
 * @throws BildadConfigError naming the wrong option
 */
export function identityOf(options: EnqueueOptions): Identity | null {
  const { unique, debounce, throttle } = options;
  if (unique === undefined && debounce === undefined && throttle === undefined) return null;
  refuseTogether(options, WHERE, 'unique', 'debounce', 'throttle');
  if (unique !== undefined) return ofUnique(unique);
  if (debounce !== undefined) {
    refuseTogether(options, WHERE, 'runAt', 'debounce');
    refuseTogether(options, WHERE, 'delay', 'debounce');
    return ofDebounce(debounce);
  }
  return ofThrottle(throttle!);
}

function ofUnique(options: NonNullable<EnqueueOptions['unique']>): Identity {
  refuseUnknown(options, ['key', 'until', 'within', 'onConflict'], 'unique', WHERE);
  const { key, until = 'finished', within, onConflict = 'ignore' } = options;
  readConflict(onConflict, 'unique.onConflict', WHERE);
  return {
    kind: 'unique',
    key: readKey(key, 'unique.key', WHERE),
    untilStarted: oneOf('started', 'finished')(until, 'unique.until', WHERE) === 'started',
    withinMs: within === undefined ? null : toMilliseconds(within, 'unique.within'),
    onConflict: onConflict === 'throw' ? 'ignore' : onConflict,
    mostWaitMs: null,
    delayMs: null,
    throws: onConflict === 'throw',
  };
}

function ofDebounce(options: NonNullable<EnqueueOptions['debounce']>): Identity {
  refuseUnknown(options, ['key', 'wait', 'maxWait'], 'debounce', WHERE);
  const { key, wait, maxWait } = options;
  const delayMs = toMilliseconds(wait, 'debounce.wait');
  return {
    kind: 'debounce',
    key: readKey(key, 'debounce.key', WHERE),
    untilStarted: true,
    withinMs: null,
    onConflict: 'debounce',
    mostWaitMs:
      maxWait === undefined ? null : toMilliseconds(maxWait, 'debounce.maxWait', { min: delayMs }),
    delayMs,
    throws: false,
  };
}

function ofThrottle(options: NonNullable<EnqueueOptions['throttle']>): Identity {
  refuseUnknown(options, ['key', 'every'], 'throttle', WHERE);
  const { key, every } = options;
  return {
    kind: 'throttle',
    key: readKey(key, 'throttle.key', WHERE),
    untilStarted: false,
    withinMs: toMilliseconds(every, 'throttle.every', { min: 1 }),
    onConflict: 'ignore',
    mostWaitMs: null,
    delayMs: null,
    throws: false,
  };
}

/** What the key's holder would be given is of another job. */
export function refuseCarried({ startBy, encrypts }: Carried, identity: Identity): void {
  if (startBy)
    throw new BildadConfigError('startBefore', `cannot be combined with ${identity.kind}`, {
      where: WHERE,
    });
  if (encrypts && identity.onConflict !== 'ignore')
    throw new BildadConfigError(
      identity.kind,
      "supports only onConflict 'ignore' or 'throw' for a job with an encrypted context, which cannot move to another job",
      { got: identity.onConflict, where: WHERE },
    );
}
