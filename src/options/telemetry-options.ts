import { toMilliseconds, type Duration } from '../job/duration.js';
import { flag, oneOf, refuseUnknown } from './option-values.js';

/** How the span of a run belongs to the span of the call that enqueued its job. */
export type SpanRelation = 'link' | 'parent';

/** What goes to OpenTelemetry. It needs the package `@opentelemetry/api`, and the app's own SDK behind it. */
export interface TelemetryOptions {
  /** A span for each call that enqueues and for each run of a handler. Default `true`. */
  traces?: boolean;
  /** The engine's metrics. Default `true`. */
  metrics?: boolean;
  /**
   * `'link'`: a run begins a trace of its own, with a link to the span that enqueued it, so that a job that waits for
   * days, or runs ten times, does not stretch a request's trace. `'parent'`: a run is part of the trace that enqueued it.
   * Default `'link'`.
   */
  relation?: SpanRelation;
  /**
   * Whether spans carry the message and the stack of what a handler throws, which may quote the job's context; of
   * encrypted jobs they never do. Else they carry the error's class. Default `false`.
   */
  errorMessages?: boolean;
  /**
   * The queue's own gauges are read from the database, once for all who ask within this time; where that takes long
   * also less often, so that it is a fiftieth of the time at the most. Default `'10s'`.
   */
  queueInterval?: Duration;
}

export interface TelemetrySettings {
  traces: boolean;
  metrics: boolean;
  relation: SpanRelation;
  errorMessages: boolean;
  queueIntervalMs: number;
}

const RELATIONS: readonly SpanRelation[] = ['link', 'parent'];
const NAMES: readonly (keyof TelemetryOptions)[] = [
  'traces',
  'metrics',
  'relation',
  'errorMessages',
  'queueInterval',
];

/** @throws BildadConfigError naming the first wrong one */
export function readTelemetry(given: boolean | TelemetryOptions): TelemetrySettings {
  const none = given === false;
  const options = typeof given === 'boolean' ? {} : given;
  refuseUnknown(options, 'telemetry.', NAMES);
  const {
    traces = !none,
    metrics = !none,
    relation = 'link',
    errorMessages = false,
    queueInterval = '10s',
  } = options;
  return {
    traces: flag(traces, 'telemetry.traces'),
    metrics: flag(metrics, 'telemetry.metrics'),
    relation: oneOf(relation, 'telemetry.relation', RELATIONS),
    errorMessages: flag(errorMessages, 'telemetry.errorMessages'),
    queueIntervalMs: toMilliseconds(queueInterval, 'telemetry.queueInterval'),
  };
}
