import { createTestDatabase, startTestServer } from 'nestjs-bildad/testing';
import pg from 'pg';
import { expect, it } from 'vitest';

// Test databases are copies of a template, for every way to provide the server.

// Started by the suite's global setup.
const SERVER = process.env['BILDAD_TEST_SERVER']!;

async function ask<T>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows as T[];
  } finally {
    await client.end();
  }
}

const databases = () =>
  ask<{ name: string }>(
    SERVER,
    `SELECT datname AS name FROM pg_database WHERE datname LIKE 'bildad_%' ORDER BY 1`,
  );

it('each test database is separate and has the tables', async () => {
  const before = await databases();
  const [one, two] = await Promise.all([createTestDatabase(), createTestDatabase()]);
  expect(one.url).not.toBe(two.url);
  const versions = await ask(one.url, 'SELECT version FROM bildad.schema_versions');
  expect(versions.length).toBeGreaterThan(0);
  expect(await databases()).toHaveLength(before.length + 2);
  // A database is dropped even while a client is connected.
  const client = new pg.Client({ connectionString: two.url });
  client.on('error', () => undefined);
  await client.connect();
  await Promise.all([one.drop(), two.drop()]);
  await client.end().catch(() => undefined);
  expect(await databases()).toEqual(before);
});

it('startTestServer uses an existing server, other schemas and tables of the app', async () => {
  const before = await databases();
  const given = { ...process.env };
  try {
    const server = await startTestServer({
      url: SERVER,
      schemas: ['jobs'],
      prepare: async (url) => void (await ask(url, 'CREATE TABLE own (id int)')),
    });
    const database = await createTestDatabase();
    await ask(database.url, 'SELECT * FROM jobs.job_runs, own');
    await database.drop();
    await server.stop();
    await expect(
      startTestServer({
        url: SERVER,
        schemas: [],
        prepare: () => Promise.reject(new Error('no such table')),
      }),
    ).rejects.toThrow('no such table');
  } finally {
    for (const name of ['BILDAD_TEST_SERVER', 'BILDAD_TEST_TEMPLATE'])
      process.env[name] = given[name]!;
  }
  expect(await databases()).toEqual(before);
});

it('without a server in the suite one is started, and it stops with its last database', async () => {
  const given = { ...process.env };
  delete process.env['BILDAD_TEST_SERVER'];
  delete process.env['DATABASE_URL'];
  try {
    const [one, two] = await Promise.all([createTestDatabase(), createTestDatabase()]);
    expect(new URL(one.url).host).not.toBe(new URL(SERVER).host);
    await one.drop();
    await ask(two.url, 'SELECT * FROM bildad.job_runs');
    await two.drop();
    await expect(ask(two.url, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/);
  } finally {
    Object.assign(process.env, given);
  }
});

/**
 * As in a suite without a global setup. The suite's server stands in for the one that is
 * started.
 */
async function onOwnServer(work: () => Promise<void>): Promise<void> {
  const given = { ...process.env };
  delete process.env['BILDAD_TEST_SERVER'];
  process.env['DATABASE_URL'] = SERVER;
  try {
    await work();
  } finally {
    delete process.env['DATABASE_URL'];
    Object.assign(process.env, given);
  }
}

it('a failed start of the server is not cached', () =>
  onOwnServer(async () => {
    const before = await databases();
    process.env['DATABASE_URL'] = 'postgres://nobody@127.0.0.1:1/none';
    for (const { status } of await Promise.allSettled([createTestDatabase(), createTestDatabase()]))
      expect(status).toBe('rejected');
    process.env['DATABASE_URL'] = SERVER;
    await (await createTestDatabase()).drop();
    expect(await databases()).toEqual(before);
  }));

it('the server stops with its last database even after a failed createTestDatabase', () =>
  onOwnServer(async () => {
    const before = await databases();
    const one = await createTestDatabase();
    const template = new URL(SERVER);
    template.pathname = `/${process.env['BILDAD_TEST_TEMPLATE']}`;
    // PostgreSQL cannot copy a database while a client is connected to it.
    const client = new pg.Client({ connectionString: template.href });
    await client.connect();
    await expect(createTestDatabase()).rejects.toThrow(/being accessed/);
    await client.end();
    await one.drop();
    expect(await databases()).toEqual(before);
  }));
