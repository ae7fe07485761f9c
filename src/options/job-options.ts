import type { Backoff, BackoffData } from '../job/backoff.js';
import { BildadConfigError } from '../job/errors.js';
import {
  check,
  duration,
  group,
  integer,
  oneOf,
  optional,
  string,
  withDefault,
  type Check,
} from './reader.js';

// Options that several calls and decorators have in common.

export const jobRunIdentifier = string(500);
export const priority = integer(-1_000_000, 1_000_000);
export const maxRetries = integer(0, 1_000_000);
export const timeout = duration({ min: 1 });

const jitter = check<number>(
  (value) => typeof value === 'number' && value >= 0 && value <= 1,
  'must be a number from 0 to 1',
);

const checkFixed = group({ type: oneOf('fixed'), delay: duration() });
const checkExponential = group({
  type: oneOf('exponential'),
  delay: optional(duration()),
  maxDelay: optional(duration()),
  jitter: optional(jitter),
});
const checkPause = duration();

/** Returns the backoff as given: it is stored, and turned into a delay for each retry. */
export const backoff: Check<Backoff> = (value, field, where) => {
  if (typeof value === 'function' || value === 'none') return value as Backoff;
  const type = (value as { type?: unknown } | null | undefined)?.type;
  if (typeof value === 'number' || typeof value === 'string') checkPause(value, field, where);
  else if (type === 'fixed') checkFixed(value, field, where);
  else if (type === 'exponential') checkExponential(value, field, where);
  else
    throw new BildadConfigError(
      field,
      "must be 'none', a duration, { type: 'fixed', delay } or { type: 'exponential', delay, maxDelay, jitter }",
      { got: value, where },
    );
  return value as Backoff;
};

/** A backoff that can be stored in the database. */
export const storedBackoff: Check<BackoffData> = (value, field, where) => {
  if (typeof value === 'function')
    throw new BildadConfigError(
      field,
      'cannot be a function here, because it is stored: declare the function in @BildadJob or in the module options',
      { where },
    );
  return backoff(value, field, where) as BackoffData;
};

/** Isolation levels of PostgreSQL that a handler's transaction can have. */
export type JobIsolationLevel = 'READ COMMITTED' | 'REPEATABLE READ' | 'SERIALIZABLE';

export interface TransactionalOptions {
  /**
   * A serialization error (SQLSTATE 40001) rolls back and fails the run like any other error: it uses up a retry and
   * waits for the backoff. Default `'READ COMMITTED'`, whatever the database's default is.
   */
  isolation?: JobIsolationLevel;
}

/** How the engine begins a handler's transaction. */
export type TransactionalSettings = Required<TransactionalOptions>;

const readTransactional = group({
  isolation: withDefault(
    oneOf('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'),
    'READ COMMITTED',
  ),
});

const isObject = check<object>(
  (value) => typeof value === 'object' && value !== null,
  'must be true, false or { isolation: ... }',
);

/** Read into undefined for a handler without a transaction. */
export const transactional: Check<TransactionalSettings | undefined> = (value, field, where) => {
  if (value === undefined || value === false) return undefined;
  if (value === true) return readTransactional({}, field, where);
  return readTransactional(isObject(value, field, where), field, where);
};
