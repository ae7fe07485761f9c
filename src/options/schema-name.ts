import { BildadConfigError } from '../job/errors.js';

export const DEFAULT_SCHEMA = 'bildad';

/** A schema name that needs no quoting and leaves room for PostgreSQL's 63 bytes. */
export function readSchemaName(schema: unknown): string {
  if (
    typeof schema !== 'string' ||
    !/^[a-z_][a-z0-9_]{0,40}$/.test(schema) ||
    schema.startsWith('pg_')
  )
    throw new BildadConfigError(
      'schema',
      'a PostgreSQL schema name of lower case letters, digits and underscores, at most 41, not starting with pg_',
      schema,
    );
  return schema;
}
