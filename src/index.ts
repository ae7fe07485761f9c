export type { JobEngineResults } from './node/pass.js';
export type { JobOutcome } from './node/slots.js';
export type { EntryReference } from './lifecycle/enqueue/enqueue.sql.js';
export type { JobChanges } from './control/change-jobs.js';
export type { BulkOptions, EnqueueOptions } from './lifecycle/enqueue/enqueue-options.js';
export type { Backoff, BackoffData, BackoffFunction } from './job/backoff.js';
export * from './job/errors.js';
export type { Upcast, ContextClass } from './context/context-contract.js';
export { toMilliseconds, type Duration } from './job/duration.js';
export { refuseUnknown } from './options/reader.js';
export { EncryptedValue } from './context/envelope.js';
export type {
  DebounceOptions,
  ThrottleOptions,
  UniqueConflict,
  UniqueOptions,
} from './job/unique-options.js';
export type { JobIsolationLevel, TransactionalOptions } from './options/job-options.js';
export { JobEvents, type EntryFate, type JobEventMap } from './job/events.js';
export type {
  ExecutionLogger,
  JobExecution,
  LogLevel,
  ContextOf,
  JobHandler,
  JobHandlerClass,
  ResultOf,
  HostKind,
  Isolation,
} from './job/job-handler.js';
export type { JsonSchema, JsonValue, Stored } from './job/json.js';
export type { OutcomeKind } from './job/outcome.js';
export type { JobProcessFacts, JobProgress } from './job/process-facts.js';
export type {
  BildadModuleExtras,
  BildadModuleOptions,
  BildadRole,
  CurrentManager,
  EncryptionOptions,
  IsolationOptions,
  JobCarrier,
  LogOptions,
  ShutdownOptions,
  SpanRelation,
  TelemetryOptions,
} from './options/module-options.js';
export { JobCancelledError, NonRetryableError, SnoozeError } from './job/handler-signals.js';
export { JobQueueStatus, JobRunResult, JobRunStatus } from './job/status.js';
export type { JobUpdate, KeptLine, RunLog, WatchOptions } from './job/job-update.js';
export { BildadJob, type BildadJobOptions } from './nest/handlers/bildad-job.decorator.js';
export { BildadModule } from './nest/module/bildad.module.js';
export {
  JobEngineService,
  type FinalRun,
  type Job,
  type JobContext,
  type WaitOptions,
} from './nest/services/job-engine.service.js';
export { BILDAD_EXTENSION, type EngineExtension } from './nest/module/engine-extension.js';
export { jobCodeOf } from './nest/handlers/declaration.js';
export { performHandler, type Performed, type PerformOptions } from './nest/handlers/perform.js';
export type { FailedJobFilter, JobFilter } from './nest/services/job-filter.js';
export { JobsService } from './nest/services/jobs.service.js';
export {
  BildadExecutionContext,
  type BildadContextType,
} from './nest/pipeline/execution-context.js';
export { JobForbiddenError } from './nest/pipeline/execution-context.js';
export type { JobEventRequest } from './nest/listeners/listeners.js';
export { JobRequest } from './nest/pipeline/execution-context.js';
export type { JobNodeEnd } from './database/entities/job-node.entity.js';
export type { Page } from './nest/services/arguments.js';
export type { NewTemplate, TemplateFields } from './nest/handlers/template-fields.js';
export { OnJobEvent, type OnJobEventOptions } from './nest/listeners/on-job-event.decorator.js';
export { sse } from './nest/services/sse.js';
export { RULES as OUTCOME_RULES } from './job/verdict.js';
export type { JobProcess } from './lifecycle/run/job-process.js';
export type { ConfigChanges } from './database/job-config.sql.js';
export {
  BILDAD_ENTITIES,
  bildadEntities,
  JobConfig,
  JobNode,
  JobQueueEntry,
  JobRun,
  JobTemplate,
  type BildadEntities,
} from './database/entities/index.js';
export {
  ConnectionLostError,
  StatementTimeoutError,
} from './database/connection/connection-errors.js';
export type { UnrunnableJobs } from './node/unrunnable-jobs.sql.js';
export {
  BILDAD_MIGRATIONS,
  bildadMigrations,
  SCHEMA_VERSION,
} from './database/migrations/index.js';
export {
  METRICS as BILDAD_METRICS,
  type GaugeReading,
  type MetricAttributes,
  type MetricDefinition,
  type MetricSink,
  type RecordMetric,
} from './job/metrics.js';
export type { BildadHealth, BildadLiveness } from './nest/health/health.js';
export type { RunTrace } from './features/diagnostics/index.js';
export type { QueueHead } from './features/telemetry/queue-depth.sql.js';
