import type { MigrationStep } from './step.js';

/** Holds the number of a step that is made elsewhere: it changes nothing. */
export const reserved: MigrationStep = {
  version: 3,
  name: 'Reserved',
  timestamp: 1_764_700_000_000,
  statements: () => [],
};
