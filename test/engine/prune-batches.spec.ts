import { afterAll, beforeAll, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { StepTimes } from '../../src/node/pass.sql.js';
import { bootApp, type TestApp } from '../support/app.js';

// Pruning runs in batches, so that a pass holds the guard for a short time only. The next passes continue.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp();
});
afterAll(() => bildad.close());

it('the next passes continue to prune the keys and notes that are left', async () => {
  await bildad.sql(
    `INSERT INTO bildad.job_run_notes (job_run_id, kind, seq, value, keep_until)
     SELECT n, 'log', 0, '"text"', now() FROM generate_series(1, 41000) n`,
  );
  await bildad.sql(
    `INSERT INTO bildad.job_keys (job_template_id, kind, key, check_at)
     SELECT 1, 'unique', n, now() FROM generate_series(1, 21000) n`,
  );
  const { store, events, node, settings, extensions } = (
    bildad.engine as unknown as { bildad: BildadRuntime }
  ).bildad;
  const steps = extensions.passSteps.active!.filter(({ name }) =>
    /^prune (keys|run log)$/.test(name),
  );
  let now = 0;
  const times = new StepTimes({ store, events, node, settings }, () => now);
  const left: object[] = [];
  // The steps are due one lease after the boot, and then once.
  now = node.leaseMs;
  for (let pass = 0; pass < 4; pass++) {
    for (const step of await times.claimDueSteps(steps)) {
      const more = await step.run({ db: store.db, term: '1', deadline: Infinity });
      times.recordRun(step, more === 'more');
    }
    left.push(
      ...(await bildad.sql(
        `SELECT (SELECT count(*)::int FROM bildad.job_run_notes) AS notes,
           (SELECT count(*)::int FROM bildad.job_keys) AS keys`,
      )),
    );
    if (pass < 2) continue;
    // Nothing is left, so the next pass does not prune.
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
