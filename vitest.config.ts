import { defineConfig } from 'vitest/config';

// What Nest keeps for a process tells in them, or what other files leave in it: they have one each.
const ALONE = [
  'test/migrations/{custom-schema,host-tables,two-schemas}.spec.ts',
  'test/identity/races.spec.ts',
];

// Specs import the built package by its own name, so what is tested is what ships.
export default defineConfig({
  test: {
    globalSetup: ['test/support/postgres.setup.ts'],
    setupFiles: ['test/support/leaks.setup.ts'],
    testTimeout: 20_000,
    hookTimeout: 30_000,
    // A busy machine may need longer than the default second.
    expect: { poll: { timeout: 10_000 } },
    typecheck: { enabled: false },
    projects: [
      {
        extends: true,
        // A process for all: importing Nest and TypeORM takes a second.
        test: {
          name: 'together',
          include: ['test/**/*.spec.ts'],
          exclude: ALONE,
          isolate: false,
        },
      },
      { extends: true, test: { name: 'alone', include: ALONE } },
    ],
  },
});
