import { afterAll, beforeAll, expect, it } from 'vitest';
import { Sweep } from '../../src/node/sweep.js';
import { tablesOf } from '../../src/database/tables.js';
import { bootApp, type TestApp } from '../support/app.js';

// What is to go is taken away by and by, for the guard is not to be held for long: the next passes go on with it.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp();
});
afterAll(() => bildad.close());

it('passes go on with keys and notes that a sweep has not come to, whatever the lease', async () => {
  await bildad.sql(
    `INSERT INTO bildad.job_run_notes (job_run_id, kind, seq, value, keep_until)
     SELECT n, 'log', 0, '"said"', now() FROM generate_series(1, 41000) n`,
  );
  await bildad.sql(
    `INSERT INTO bildad.job_keys (job_template_id, kind, key, look_at)
     SELECT 1, 'unique', n, now() FROM generate_series(1, 21000) n`,
  );
  await bildad.sql(`UPDATE bildad.job_configs SET swept_at = '-infinity'`);
  const node = { leaseMs: 0, batchSize: 1 };
  const none = { writeLost: async () => 0, sweep: async () => undefined };
  const sweep = new Sweep(
    ...([
      { db: bildad.dataSource, tables: tablesOf('bildad') },
      none,
      none,
      node,
      'default',
    ] as unknown as ConstructorParameters<typeof Sweep>),
  );
  const left: object[] = [];
  for (let pass = 0; pass < 4; pass++) {
    await sweep.run(false);
    node.leaseMs = 3_600_000;
    left.push(
      ...(await bildad.sql(
        `SELECT (SELECT count(*)::int FROM bildad.job_run_notes) AS notes,
           (SELECT count(*)::int FROM bildad.job_keys) AS keys`,
      )),
    );
    if (pass < 2) continue;
    // All of them are gone: a pass looks no more.
    await bildad.sql(
      `INSERT INTO bildad.job_run_notes (job_run_id, kind, seq, value, keep_until) VALUES ($1, 'log', 0, '"late"', now())`,
      [pass],
    );
  }
  expect(left).toEqual([
    { notes: 21_000, keys: 1_000 },
    { notes: 1_000, keys: 0 },
    { notes: 0, keys: 0 },
    { notes: 1, keys: 0 },
  ]);
});
