import { BildadConfigError } from '../job/errors.js';
import { oneOf, refuseUnknown } from './option-values.js';

/** PostgreSQL's isolation levels that a handler's transaction can have. */
export type JobIsolationLevel = 'READ COMMITTED' | 'REPEATABLE READ' | 'SERIALIZABLE';

export interface TransactionalOptions {
  /**
   * What fails with a serialization error (SQLSTATE 40001) is rolled back and fails like any handler: it costs a retry
   * and waits for its backoff. Default `'READ COMMITTED'`, whatever the database's default is.
   */
  isolation?: JobIsolationLevel;
}

/** How a handler's transaction is begun. */
export interface TransactionalSettings {
  level: JobIsolationLevel;
}

const LEVELS: readonly JobIsolationLevel[] = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'];

/** @returns undefined where the handler has no transaction @throws BildadConfigError naming `field` */
export function readTransactional(
  given: unknown,
  field: string,
): TransactionalSettings | undefined {
  if (given === undefined || given === false) return undefined;
  if (given === true) return { level: 'READ COMMITTED' };
  if (typeof given !== 'object' || given === null)
    throw new BildadConfigError(field, 'true, false or { isolation: ... }', given);
  refuseUnknown(given, `${field}.`, ['isolation']);
  const { isolation } = given as TransactionalOptions;
  return {
    level: oneOf(isolation ?? 'READ COMMITTED', `${field}.isolation`, LEVELS),
  };
}
