import type { MigrationStep } from './step.js';

/** What a node's heartbeat tells of the processes at work there, for who asks elsewhere. */
export const processes: MigrationStep = {
  version: 7,
  name: 'Processes',
  timestamp: 1_765_100_000_000,
  minReader: 5,
  statements: (tables) => [
    `ALTER TABLE ${tables.nodes} ADD COLUMN abandoned integer NOT NULL DEFAULT 0,
       ADD COLUMN processes jsonb NOT NULL DEFAULT '[]'`,
  ],
};
