export {
  startPostgres,
  type PostgresServer,
  type PostgresServerOptions,
} from './postgres-server.js';
export { BildadTesting } from './bildad-testing.js';
export { BildadTestingModule, closeTesting } from './bildad-testing.module.js';
export type { TestClock } from './clock.js';
export type { DrainOptions } from './drain.js';
export type { EnqueuedJob } from './enqueued.js';
export { DrainLimitError, JobRunFailedError, TestLeakError } from './errors.js';
export { bildadMatchers, type EnqueuedLike } from './matchers.js';
export type { BildadTestingOptions, TestingMode } from './bildad-testing.module.js';
export { performJob, type PerformJobOptions } from './perform.js';
export type { FinishedRun } from './drain.js';
export {
  createTestDatabase,
  startTestServer,
  type TestDatabase,
  type TestServer,
  type TestServerOptions,
} from './databases.js';
