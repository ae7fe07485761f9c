import { defineConfig } from 'vitest/config';

// Specs import the built package by its own name, so what is tested is what ships.
export default defineConfig({
  test: {
    include: ['test/**/*.spec.ts'],
    globalSetup: ['test/support/postgres.setup.ts'],
    setupFiles: ['test/support/leaks.setup.ts'],
    testTimeout: 20_000,
    hookTimeout: 30_000,
    // A busy machine may need longer than the default second.
    expect: { poll: { timeout: 10_000 } },
    typecheck: { enabled: false },
  },
});
