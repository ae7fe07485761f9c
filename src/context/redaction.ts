import {
  JobContextVersionError,
  JobEncryptionKeyError,
  InvalidJobContextError,
  JobHostDiedError,
} from '../job/errors.js';
import type { Outcome } from '../job/outcome.js';
import { attempt, nameOf } from '../job/storable-output.js';

const WHY = 'redacted, for the job is encrypted';

/** What may be told of an error that may quote a secret: its class, its code, and where a context is invalid. */
export function redactedError(error: unknown): Error {
  if (attempt(() => error instanceof InvalidJobContextError) === true)
    return new InvalidJobContextError(
      (error as InvalidJobContextError).violations.map(({ path }) => ({
        path,
        message: WHY,
      })),
    );
  const name = nameOf(error);
  const redacted = new Error(`${name}: ${WHY}`);
  const code = attempt(() => (error as { code?: unknown }).code);
  const hidden = { configurable: true, writable: true };
  Object.defineProperty(redacted, 'name', { value: name, ...hidden });
  Object.defineProperty(redacted, 'stack', {
    value: redacted.message,
    ...hidden,
  });
  if (typeof code === 'string' && /^\w{1,60}$/.test(code)) Object.assign(redacted, { code });
  return redacted;
}

/** An outcome without what may quote a secret. What a handler says in so many words, of why it snoozes or gives up, stays. */
export const redacted = (outcome: Outcome): Outcome =>
  'error' in outcome && !isOwn(outcome.error)
    ? { ...outcome, error: redactedError(outcome.error) }
    : outcome;

/** These are the engine's, and quote nothing. */
const isOwn = (error: unknown) =>
  attempt(
    () =>
      error instanceof JobHostDiedError ||
      error instanceof JobEncryptionKeyError ||
      error instanceof JobContextVersionError,
  ) === true;
