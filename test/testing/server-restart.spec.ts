import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startPostgres, type PostgresServer } from 'nestjs-bildad/testing';

let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ settings: { synchronous_commit: 'on' } });
});
afterAll(() => server.stop());

async function sql(text: string): Promise<unknown[]> {
  const client = new pg.Client(server.url);
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

it.each(['fast', 'crash'] as const)(
  'a restarted server (%s) has the same address and its committed data',
  async (how) => {
    await sql(`CREATE TABLE kept_${how} AS SELECT 1 AS n`);
    const lost = new pg.Client(server.url);
    const disconnected = new Promise((resolve) => lost.on('error', resolve));
    await lost.connect();
    await server.restart(how);
    expect(await disconnected).toBeInstanceOf(Error);
    expect(await sql(`SELECT n FROM kept_${how}`)).toEqual([{ n: 1 }]);
  },
);
