import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { runLab } from './lab/lab.js';
import { StepJob } from './lab/worker.js';

// Nodes are killed (SIGKILL) around any statement of their handlers' transactions, and jobs are
// stopped in between. Each effect must be in the database exactly once. The full lab (5,000 jobs,
// 200 kills): npm run lab:transactions.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [StepJob],
    options: { role: 'producer' },
  });
});
afterAll(() => bildad.close());

it(
  'each effect is in the database exactly once, for kills at any statement',
  { timeout: 120_000 },
  async () => {
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
  },
);
