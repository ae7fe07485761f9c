import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { runLab } from './lab/lab.js';
import { StepJob } from './lab/worker.js';

// Real nodes that are killed (SIGKILL) around any statement of their handlers' transactions, and jobs that are taken back
// meanwhile: each effect is in the database exactly once. 5,000 jobs and 200 kills: npm run lab:transactions.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [StepJob],
    options: { role: 'producer' },
  });
});
afterAll(() => bildad.close());

it('each effect is there exactly once, whatever dies when', { timeout: 120_000 }, async () => {
  const figures = await runLab(bildad, {
    seed: 20_261_126,
    jobs: 200,
    kills: 10,
    nodes: 3,
    worker: new URL('../../dist/test/transactions/lab/worker.js', import.meta.url),
    databaseUrl: bildad.database.url,
  });
  expect(figures.violations).toEqual([]);
  expect(figures.kills).toBeGreaterThanOrEqual(10);
  expect(figures.killsAtStatements).toBeGreaterThan(0);
});
