import {
  JobContextVersionError,
  JobEncryptionKeyError,
  InvalidJobContextError,
  JobHostDiedError,
} from '../job/errors.js';
import type { Outcome } from '../job/outcome.js';
import { attempt, nameOf } from '../job/storable-output.js';

const REDACTED = 'redacted, because the job is encrypted';

/** Keeps an error's class, its code, and the paths of an invalid context. Its message may quote a secret. */
export function redactedError(error: unknown): Error {
  if (attempt(() => error instanceof InvalidJobContextError) === true)
    return new InvalidJobContextError(
      (error as InvalidJobContextError).violations.map(({ path }) => ({ path, message: REDACTED })),
    );
  const name = nameOf(error);
  const redacted = new Error(`${name}: ${REDACTED}`);
  const code = attempt(() => (error as { code?: unknown }).code);
  const hidden = { configurable: true, writable: true };
  Object.defineProperty(redacted, 'name', { value: name, ...hidden });
  Object.defineProperty(redacted, 'stack', { value: redacted.message, ...hidden });
  if (typeof code === 'string' && /^\w{1,60}$/.test(code)) Object.assign(redacted, { code });
  return redacted;
}

/** Redacts the error of an outcome. The reasons that a handler gives for a snooze or a cancellation stay. */
export const redacted = (outcome: Outcome): Outcome =>
  'error' in outcome && !isFromEngine(outcome.error)
    ? { ...outcome, error: redactedError(outcome.error) }
    : outcome;

/** The engine's own errors quote nothing. */
const isFromEngine = (error: unknown) =>
  attempt(
    () =>
      error instanceof JobHostDiedError ||
      error instanceof JobEncryptionKeyError ||
      error instanceof JobContextVersionError,
  ) === true;
