import { BildadDatabaseError, BildadError } from '../job/errors.js';

/** The SQLSTATE, or the system's code of a connection error, however deep a driver wrapped it. */
export function databaseCode(error: unknown): string | undefined {
  const { code, driverError } = (error ?? {}) as { code?: unknown; driverError?: unknown };
  if (typeof code === 'string') return code;
  return driverError === undefined ? undefined : databaseCode(driverError);
}

/** data_exception, program_limit_exceeded: the values are at fault, a retry would not help. */
export const isDataError = (error: unknown) => /^(22|54)/.test(databaseCode(error) ?? '');

/** The same, or integrity_constraint_violation: a retry of this row would be refused too. */
export const isRefusal = (error: unknown) => /^(22|23|54)/.test(databaseCode(error) ?? '');

/** serialization_failure, deadlock_detected: a retry may succeed. */
export const isConflict = (error: unknown) => /^(40001|40P01)$/.test(databaseCode(error) ?? '');

/** cardinality_violation, syntax_error_or_access_rule_violation: refused until the statement, the tables or a right change. */
const isForbidden = (error: unknown) => /^(21|42)/.test(databaseCode(error) ?? '');

/** A lock or statement timeout, a full disk, too many connections: a retry may succeed later. */
export const isTransient = (error: unknown) =>
  /^[0-9A-Z]{5}$/.test(databaseCode(error) ?? '') && !isRefusal(error) && !isForbidden(error);

/** lock_not_available: nothing was done. */
export const isLockTimeout = (error: unknown) => databaseCode(error) === '55P03';

/** unique_violation. */
export const isUniqueViolation = (error: unknown) => databaseCode(error) === '23505';

const HINTS: [pattern: RegExp, hint: (schema: string) => string][] = [
  [
    /^42501$/,
    (schema) =>
      `the role lacks a right: let its owner run BILDAD_MIGRATIONS, then GRANT USAGE ON SCHEMA "${schema}" and ` +
      `SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "${schema}" to it; to let it create the schema, GRANT CREATE ON DATABASE`,
  ],
  [/^25006$/, () => 'the server is read-only: connect to the primary'],
  [
    /^(08|57P0|ECONN|ENOTFOUND|ETIMEDOUT|EHOST|EPIPE)/,
    () => 'the database cannot be reached: is it running, are host and port right?',
  ],
  [/^(28|3D)/, () => 'the database refuses the login: check user, password and database name'],
];

/** A database error at boot, with a hint how to fix it. The engine's own errors are returned unchanged. */
export function explainError(error: unknown, doing: string, schema: string): Error {
  if (error instanceof BildadError) return error;
  const code = databaseCode(error);
  const hint = HINTS.find(([pattern]) => code !== undefined && pattern.test(code))?.[1](schema);
  const message = error instanceof Error ? error.message : String(error);
  return new BildadDatabaseError(
    `${doing}: ${hint ?? 'the database answered with an error'} (${code ? `${code}: ` : ''}${message})`,
    code,
    { cause: error },
  );
}
