import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** What Nest keeps for a process shows in these, or what other files leave in it: they have one each. */
const ALONE = [
  'test/migrations/{custom-schema,host-tables,two-schemas}.spec.ts',
  'test/identity/races.spec.ts',
];

/** Specs with leases of about a second, or with several processes: nothing runs beside them. */
const QUIET = [
  'test/{isolation,nodes,outages,races}/*.spec.ts',
  'test/events/listeners.spec.ts',
  'test/lifecycle/*.spec.ts',
  'test/telemetry/processes.spec.ts',
  'test/transactions/exactly-once.spec.ts',
];

/** Installs other versions of Nest and TypeORM, for minutes: `npm run test:compat`. */
const COMPAT = ['test/compat/*.spec.ts'];

// Most specs wait more than they compute, so even one core has work for two processes.
const maxWorkers = Math.min(4, Math.max(2, availableParallelism()));

// Specs import the built package by its own name, so what is tested is what ships.
export default defineConfig({
  test: {
    globalSetup: ['test/support/postgres.setup.ts'],
    setupFiles: ['test/support/leaks.setup.ts'],
    // Deadlines for a machine that is busy with other work: a green run never waits for them.
    testTimeout: 60_000,
    hookTimeout: 90_000,
    expect: { poll: { timeout: 30_000 } },
    typecheck: { enabled: false },
    projects: [
      {
        extends: true,
        // A worker runs many files in one process: importing Nest and TypeORM takes a second.
        test: {
          name: 'together',
          include: ['test/**/*.spec.ts'],
          exclude: [...ALONE, ...QUIET, ...COMPAT],
          isolate: false,
          maxWorkers,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: { name: 'alone', include: ALONE, maxWorkers, sequence: { groupOrder: 2 } },
      },
      {
        extends: true,
        test: {
          name: 'quiet',
          include: QUIET,
          isolate: false,
          maxWorkers: 1,
          sequence: { groupOrder: 4 },
        },
      },
      { extends: true, test: { name: 'compat', include: COMPAT, sequence: { groupOrder: 3 } } },
    ],
  },
});
