export type { JobEngineResults } from './engine/cycle.js';
export type { JobOutcome } from './engine/launch.js';
export type { EntryReference } from './life/enqueue/bulk-insert.js';
export type { JobChanges } from './life/enqueue/change-options.js';
export type { BulkOptions, EnqueueOptions } from './life/enqueue/enqueue-options.js';
export type { Backoff, BackoffData, BackoffFunction } from './model/backoff.js';
export * from './model/context-errors.js';
export type { Upcast } from './model/context-traits.js';
export { toMilliseconds, type Duration } from './model/duration.js';
export { refuseUnknown } from './model/option-values.js';
export type { EncryptionOptions } from './model/encryption-options.js';
export * from './model/enqueue-errors.js';
export { EncryptedValue } from './model/envelope.js';
export * from './model/errors.js';
export type {
  DebounceOptions,
  ThrottleOptions,
  UniqueConflict,
  UniqueOptions,
} from './model/identity.js';
export { TransactionOverError } from './model/transaction-over-error.js';
export type { JobIsolationLevel, TransactionalOptions } from './model/transactional.js';
export { JobEvents, type EntryFate, type JobEventMap } from './model/events.js';
export type { ExecutionLogger, JobExecution, LogLevel } from './model/job-execution.js';
export type { ContextOf, JobHandler, JobHandlerClass, ResultOf } from './model/job-handler.js';
export type { HostKind, Isolation } from './model/isolation.js';
export type { IsolationOptions } from './model/isolation-options.js';
export type { JsonSchema, JsonValue } from './model/json.js';
export type { LogOptions } from './model/log-options.js';
export type { Stored } from './model/stored.js';
export type { OutcomeKind } from './model/outcome.js';
export type { JobProcessFacts, JobProgress } from './model/process-facts.js';
export type {
  BildadModuleExtras,
  BildadModuleOptions,
  BildadRole,
  CurrentManager,
} from './model/settings.js';
export type { JobCarrier } from './model/surroundings-options.js';
export { JobCancelledError, NonRetryableError, SnoozeError } from './model/said.js';
export { JobQueueStatus, JobRunResult, JobRunStatus } from './model/status.js';
export type { JobUpdate, KeptLine, RunLog, WatchOptions } from './model/watch.js';
export { BildadJob, type BildadJobOptions } from './nest/bildad-job.decorator.js';
export { BildadModule } from './nest/bildad.module.js';
export { JobEngineService, type Job, type JobContext } from './nest/job-engine.service.js';
export { BILDAD_EXTENSION, type EngineExtension } from './nest/extension.js';
export { jobCodeOf } from './nest/job-reference.js';
export { performHandler, type Performed, type PerformOptions } from './nest/perform.js';
export type { FailedJobFilter, JobFilter } from './nest/job-filter.js';
export type { FinalRun, WaitOptions } from './nest/both-ends.js';
export { JobsService } from './nest/jobs.service.js';
export {
  BildadExecutionContext,
  type BildadContextType,
} from './nest/pipeline/execution-context.js';
export { JobForbiddenError } from './nest/pipeline/forbidden.js';
export type { JobEventRequest } from './nest/listeners/call-listener.js';
export { JobRequest } from './nest/pipeline/job-request.js';
export type { JobNodeEnd } from './store/entities/job-node.entity.js';
export type { Page } from './nest/paging.js';
export type { NewTemplate, TemplateFields } from './nest/template-fields.js';
export { OnJobEvent, type OnJobEventOptions } from './nest/listeners/on-job-event.decorator.js';
export { sse } from './nest/sse.js';
export type { ContextClass } from './policy/context.js';
export { RULES as OUTCOME_RULES } from './policy/verdict.js';
export type { JobProcess } from './runner/job-process.js';
export type { ConfigChanges } from './store/config.store.js';
export {
  BILDAD_ENTITIES,
  bildadEntities,
  JobConfig,
  JobNode,
  JobQueueEntry,
  JobRun,
  JobTemplate,
  type BildadEntities,
} from './store/entities/index.js';
export { ConnectionLostError } from './store/connection/lost.js';
export type { UnrunnableJobs } from './store/unrunnable.store.js';
export { BILDAD_MIGRATIONS, bildadMigrations, SCHEMA_VERSION } from './store/migrations/index.js';
export {
  METRICS as BILDAD_METRICS,
  type GaugeReading,
  type MetricAttributes,
  type MetricDefinition,
  type MetricSink,
  type RecordMetric,
} from './model/metrics.js';
export type { SpanRelation, TelemetryOptions } from './model/telemetry-options.js';
export type { BildadHealth, BildadLiveness } from './nest/health.js';
export type { RunTrace } from './features/diagnostics/index.js';
export type { QueueHead } from './store/depth.store.js';
