import { claimFunction } from './003-claims-by-kind.js';
import type { MigrationStep } from './step.js';

/**
 * A claim tells the time when it has its entries. Before, it did when it began to look: an entry that came back
 * meanwhile had a run that began, by its row, milliseconds before the one before it had ended.
 */
export const claimClock: MigrationStep = {
  version: 6,
  name: 'ClaimClock',
  timestamp: 1_765_000_000_000,
  minReader: 5,
  statements: (tables) => [claimFunction(tables)],
};
