import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';

export interface TestDatabase {
  url: string;
  /** Runs SQL as the superuser, outside the app. */
  sql<T = any>(text: string, values?: unknown[]): Promise<T[]>;
  drop(): Promise<void>;
}

/** A new database with the tables of the schema `bildad`, copied from the suite's template. */
export function createDatabase(): Promise<TestDatabase> {
  return createWith(`TEMPLATE ${inject('databaseTemplate')}`);
}

/**
 * A new database without tables, for specs about migrations, schemas and first boots.
 * @param options of CREATE DATABASE
 */
export function createEmptyDatabase(options = 'TEMPLATE template1'): Promise<TestDatabase> {
  return createWith(options);
}

async function createWith(options: string): Promise<TestDatabase> {
  const name = `t_${randomUUID().replaceAll('-', '')}`;
  const server = inject('databaseUrl');
  await once(server, `CREATE DATABASE ${name} ${options}`);
  const address = new URL(server);
  address.pathname = `/${name}`;
  const url = address.href;
  return {
    url,
    sql: (text, values) => once(url, text, values),
    drop: async () => void (await once(server, `DROP DATABASE ${name} WITH (FORCE)`)),
  };
}

async function once<T>(url: string, text: string, values?: unknown[]): Promise<T[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text, values)).rows as T[];
  } finally {
    await client.end();
  }
}
