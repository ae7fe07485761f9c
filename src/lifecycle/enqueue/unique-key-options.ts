import { toMilliseconds } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import { oneOf, refuseUnknown, text } from '../../options/option-values.js';
import type { KeyedAsk } from './unique-keys.sql.js';
import type { Carried } from './entry-envelope.js';
import type { EnqueueOptions } from './enqueue-options.js';

const KINDS = ['unique', 'debounce', 'throttle'] as const;
const CONFLICTS = ['ignore', 'replace', 'reschedule', 'keepLatest', 'throw'] as const;
const LONGEST_KEY = 500;

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
  const given = KINDS.filter((kind) => options[kind] !== undefined);
  if (given.length > 1) throw new BildadConfigError(given.join(', '), 'only one of them', 'both');
  if (unique !== undefined) return ofUnique(unique);
  if (debounce !== undefined) {
    for (const name of ['runAt', 'delay'] as const)
      if (options[name] !== undefined)
        throw new BildadConfigError(
          name,
          'none beside debounce, whose wait says when the job is due',
          options[name],
        );
    return ofDebounce(debounce);
  }
  return ofThrottle(throttle!);
}

function ofUnique(options: NonNullable<EnqueueOptions['unique']>): Identity {
  refuseUnknown(options, 'unique.', ['key', 'until', 'within', 'onConflict']);
  const { key, until = 'finished', within, onConflict = 'ignore' } = options;
  oneOf(onConflict, 'unique.onConflict', CONFLICTS);
  return {
    kind: 'unique',
    key: text(key, 'unique.key', LONGEST_KEY),
    untilStarted: oneOf(until, 'unique.until', ['started', 'finished']) === 'started',
    withinMs: within === undefined ? null : toMilliseconds(within, 'unique.within'),
    onConflict: onConflict === 'throw' ? 'ignore' : onConflict,
    mostWaitMs: null,
    delayMs: null,
    throws: onConflict === 'throw',
  };
}

function ofDebounce(options: NonNullable<EnqueueOptions['debounce']>): Identity {
  refuseUnknown(options, 'debounce.', ['key', 'wait', 'maxWait']);
  const { key, wait, maxWait } = options;
  const delayMs = toMilliseconds(wait, 'debounce.wait');
  return {
    kind: 'debounce',
    key: text(key, 'debounce.key', LONGEST_KEY),
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
  refuseUnknown(options, 'throttle.', ['key', 'every']);
  const { key, every } = options;
  return {
    kind: 'throttle',
    key: text(key, 'throttle.key', LONGEST_KEY),
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
  if (startBy) throw new BildadConfigError('startBefore', `none beside ${identity.kind}`, 'both');
  if (encrypts && identity.onConflict !== 'ignore')
    throw new BildadConfigError(
      identity.kind,
      "onConflict 'ignore' or 'throw', for a job whose context is encrypted: it is bound to its own job",
      identity.onConflict,
    );
}
