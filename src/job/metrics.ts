/** What is told with a value: few values each, so that it stays few series. */
export type MetricAttributes = Readonly<Record<string, string>>;

export interface MetricDefinition {
  /** As OpenTelemetry's semantic conventions have it, where they do: `messaging.process.duration`. */
  readonly name: string;
  readonly kind: 'counter' | 'histogram' | 'gauge';
  /** UCUM: `s`, or what is counted in braces: `{run}`. */
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

/** Where an engine's metrics go: OpenTelemetry, Prometheus, or what a test makes of them. */
export interface MetricSink {
  /** Called once for each counter and histogram. @returns what takes its values */
  instrument(definition: MetricDefinition): RecordMetric;
  /**
   * Called once. `read` is to be asked whenever the gauges are collected; it never rejects: what cannot be known now is
   * left out. @returns how to stop asking
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
const RUNS_TAKE = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1_800, 3_600];
const STATEMENTS_TAKE = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];

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

/** All there is to know of an engine in numbers; each sink says it in its own way. */
export const METRICS = {
  sent: metric(
    'counter',
    'messaging.client.sent.messages',
    '{message}',
    'Jobs that this process has enqueued, also in transactions that were rolled back later; of a call that failed, one.',
    [SYSTEM, OPERATION, DESTINATION, ERROR],
  ),
  sendDuration: metric(
    'histogram',
    'messaging.client.operation.duration',
    's',
    'What calls that enqueue took.',
    [SYSTEM, OPERATION, DESTINATION, ERROR],
    STATEMENTS_TAKE,
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
    'From the call of the handler until the end of the run was recorded.',
    [SYSTEM, OPERATION, DESTINATION, OUTCOME, ERROR],
    RUNS_TAKE,
  ),
  finished: metric(
    'counter',
    'bildad.runs',
    '{run}',
    'Runs that this process has ended, its own and those of lost nodes, by outcome and by what became of the entry.',
    [DESTINATION, OUTCOME, ENTRY],
  ),
  late: metric(
    'counter',
    'bildad.runs.late',
    '{run}',
    'Ends that came when somebody else had ended the run before.',
    [DESTINATION],
  ),
  wait: metric(
    'histogram',
    'bildad.wait.duration',
    's',
    'From when a job was due until it was claimed, by the clock of the database.',
    [DESTINATION],
    RUNS_TAKE,
  ),
  claimDuration: metric(
    'histogram',
    'bildad.claim.duration',
    's',
    'What claims of what is due took.',
    [],
    STATEMENTS_TAKE,
  ),
  claimed: metric('counter', 'bildad.claimed', '{run}', 'Jobs claimed.', []),
  abandoned: metric(
    'counter',
    'bildad.processes.abandoned',
    '{process}',
    'Handlers that did not stop within the grace period and go on.',
    [DESTINATION],
  ),
  quarantined: metric(
    'counter',
    'bildad.quarantined',
    '{entry}',
    'Entries that were put aside because the database refuses them.',
  ),
  passes: metric(
    'counter',
    'bildad.engine.passes',
    '{pass}',
    'Passes of the engine that this process made: of all nodes together there should be one a tick.',
  ),
  errors: metric(
    'counter',
    'bildad.engine.errors',
    '{error}',
    'What failed in the background and is tried again.',
    [ERROR],
  ),
  nodesLost: metric(
    'counter',
    'bildad.nodes.lost',
    '{node}',
    'Nodes that this one has found dead.',
  ),
  fenced: metric(
    'counter',
    'bildad.node.fenced',
    '{fence}',
    'How often this node had to stop what it ran, because the database did not hear of it.',
  ),
  outages: metric(
    'counter',
    'bildad.database.outages',
    '{outage}',
    'How often the database was lost.',
  ),
  away: metric(
    'gauge',
    'bildad.database.away',
    '{database}',
    '1 while the database is lost, else 0.',
  ),
  running: metric('gauge', 'bildad.running', '{run}', 'Runs that hold a slot of this node.', [
    DESTINATION,
  ]),
  slots: metric('gauge', 'bildad.slots', '{slot}', 'Slots that this node has: its concurrency.'),
  backlog: metric('gauge', 'bildad.backlog', '{run}', 'Ends of runs that wait to be recorded.'),
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
    'For how long the oldest job has been due that is not running.',
    [DESTINATION],
  ),
} as const satisfies Record<string, MetricDefinition>;

export type MetricName = keyof typeof METRICS;
