/**
 * The attributes of a value. Each has few different values, which keeps the number of series small.
 */
export type MetricAttributes = Readonly<Record<string, string>>;

export interface MetricDefinition {
  /**
   * From OpenTelemetry's semantic conventions where they define one: `messaging.process.duration`.
   */
  readonly name: string;
  readonly kind: 'counter' | 'histogram' | 'gauge';
  /** UCUM: `s`, or the counted thing in braces: `{run}`. */
  readonly unit: string;
  readonly description: string;
  /** The names of its attributes. */
  readonly attributes: readonly string[];
  /** Upper bounds of a histogram's buckets. */
  readonly buckets?: readonly number[];
}

/** Takes one value. Must not throw. */
export type RecordMetric = (value: number, attributes: MetricAttributes) => void;

/** One value of a gauge, as of now. */
export interface GaugeReading {
  readonly gauge: MetricDefinition;
  readonly value: number;
  readonly attributes: MetricAttributes;
}

/** Receives the metrics of an engine: OpenTelemetry, Prometheus, or your own. */
export interface MetricSink {
  /** Called once for each counter and histogram. @returns records its values */
  instrument(definition: MetricDefinition): RecordMetric;
  /**
   * Called once. Call `read` whenever the gauges are collected. It never rejects and leaves out
   * values that are unknown.
   * @returns stops the collection
   */
  observe(
    gauges: readonly MetricDefinition[],
    read: () => Promise<readonly GaugeReading[]>,
  ): () => void;
}

export const SYSTEM = 'messaging.system';
export const OPERATION = 'messaging.operation.name';
export const DESTINATION = 'messaging.destination.name';
export const ERROR = 'error.type';
const OUTCOME = 'bildad.outcome';
const ENTRY = 'bildad.entry';
const ENGINE = ['bildad.engine'] as const;

/** Seconds: from a job without work to a long one. */
const RUN_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1_800, 3_600];
const STATEMENT_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];

function metric(
  kind: MetricDefinition['kind'],
  name: string,
  unit: string,
  description: string,
  attributes: readonly string[] = [],
  buckets?: readonly number[],
): MetricDefinition {
  return {
    kind,
    name,
    unit,
    description,
    attributes: [...ENGINE, ...attributes],
    ...(buckets && { buckets }),
  };
}

/** All metrics of an engine. */
export const METRICS = {
  sent: metric(
    'counter',
    'messaging.client.sent.messages',
    '{message}',
    'Jobs that this process enqueued, including transactions that were rolled back later; a failed call counts as one.',
    [SYSTEM, OPERATION, DESTINATION, ERROR],
  ),
  sendDuration: metric(
    'histogram',
    'messaging.client.operation.duration',
    's',
    'Duration of calls that enqueue.',
    [SYSTEM, OPERATION, DESTINATION, ERROR],
    STATEMENT_SECONDS,
  ),
  consumed: metric(
    'counter',
    'messaging.client.consumed.messages',
    '{message}',
    'Runs whose handlers were called.',
    [SYSTEM, OPERATION, DESTINATION],
  ),
  processDuration: metric(
    'histogram',
    'messaging.process.duration',
    's',
    'Time from the call of the handler until the end of the run was recorded.',
    [SYSTEM, OPERATION, DESTINATION, OUTCOME, ERROR],
    RUN_SECONDS,
  ),
  finished: metric(
    'counter',
    'bildad.runs',
    '{run}',
    'Runs that this process ended, its own and those of lost nodes, by outcome and by what happened to the entry.',
    [DESTINATION, OUTCOME, ENTRY],
  ),
  rejected: metric(
    'counter',
    'bildad.runs.rejected',
    '{run}',
    'Outcomes that were rejected because the run had ended before.',
    [DESTINATION],
  ),
  wait: metric(
    'histogram',
    'bildad.wait.duration',
    's',
    'Time from when a job was due until it was claimed, by the clock of the database.',
    [DESTINATION],
    RUN_SECONDS,
  ),
  claimDuration: metric(
    'histogram',
    'bildad.claim.duration',
    's',
    'Duration of claims of due jobs.',
    [],
    STATEMENT_SECONDS,
  ),
  claimed: metric('counter', 'bildad.claimed', '{run}', 'Jobs claimed.', []),
  abandoned: metric(
    'counter',
    'bildad.processes.abandoned',
    '{process}',
    'Handlers that did not stop within the grace period and still run.',
    [DESTINATION],
  ),
  quarantined: metric(
    'counter',
    'bildad.quarantined',
    '{entry}',
    'Entries that were quarantined because the database refuses them.',
  ),
  passes: metric(
    'counter',
    'bildad.engine.passes',
    '{pass}',
    'Passes of the engine that this process made: all nodes together should make one per tick.',
  ),
  errors: metric(
    'counter',
    'bildad.engine.errors',
    '{error}',
    'Background errors; the failed work is tried again.',
    [ERROR],
  ),
  nodesLost: metric(
    'counter',
    'bildad.nodes.lost',
    '{node}',
    'Lost nodes that this process detected.',
  ),
  fenced: metric(
    'counter',
    'bildad.node.fenced',
    '{fence}',
    'How often this node stopped its jobs because its heartbeats did not reach the database.',
  ),
  outages: metric(
    'counter',
    'bildad.database.outages',
    '{outage}',
    'How often the connection to the database was lost.',
  ),
  unreachable: metric(
    'gauge',
    'bildad.database.unreachable',
    '{database}',
    '1 while the database is unreachable, else 0.',
  ),
  running: metric('gauge', 'bildad.running', '{run}', 'Runs that use a slot of this node.', [
    DESTINATION,
  ]),
  slots: metric('gauge', 'bildad.slots', '{slot}', 'Slots of this node: its concurrency.'),
  backlog: metric('gauge', 'bildad.backlog', '{run}', 'Ended runs that wait to be recorded.'),
  queued: metric(
    'gauge',
    'bildad.queue.jobs',
    '{job}',
    'Jobs in the queue, of all nodes, by state: due, scheduled, running, quarantined.',
    [DESTINATION, 'bildad.state'],
  ),
  oldest: metric(
    'gauge',
    'bildad.queue.oldest.age',
    's',
    'Age of the oldest due job that is not running.',
    [DESTINATION],
  ),
} as const satisfies Record<string, MetricDefinition>;

export type MetricName = keyof typeof METRICS;
