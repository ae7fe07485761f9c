import { ThrottledProbe } from '../../concurrency/throttled-probe.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { JobEventMap } from '../../job/events.js';
import {
  DESTINATION,
  ERROR,
  METRICS,
  OPERATION,
  SYSTEM,
  type GaugeReading,
  type MetricAttributes,
  type MetricDefinition,
  type MetricName,
  type MetricSink,
  type RecordMetric,
} from '../../job/metrics.js';
import type { ExtensionPoints } from '../../lifecycle/extension-points.js';
import type { ProcessRegistry } from '../../lifecycle/run/process-registry.js';
import type { RunJobs } from '../../lifecycle/run/run-jobs.js';
import { DEFAULT_SCHEMA } from '../../options/settings.js';
import { AttributeSets, errorType, faultOf, OTHER } from './attributes.js';
import { queueDepths, type QueueDepth } from './queue-depth.sql.js';

type FinishedEvent = JobEventMap['run.finished'][0];
type Records = Record<MetricName, RecordMetric>;

/** A collection waits no longer than this for the database. */
const QUEUE_DEPTH_WAIT_MS = 2_000;
const QUEUE_STATES = ['due', 'scheduled', 'running', 'quarantined'] as const;

/** The parts of an engine that metrics and traces are made from, shared by all sinks. */
export interface MeasuredEngine extends EngineContext {
  extensions: ExtensionPoints;
  processes: ProcessRegistry;
  runs: RunJobs;
  /**
   * Unique among the engines of a process. One attribute, because each attribute adds to the cost
   * of a value.
   */
  engine: string;
  /** In a host of isolated jobs only enqueues are counted; the node counts the runs. */
  isHost: boolean;
  /** The last read depths of the queue. Never rejects. */
  readQueueDepths: () => Promise<readonly QueueDepth[]>;
}

export function measuredEngine(
  context: EngineContext,
  extensions: ExtensionPoints,
  processes: ProcessRegistry,
  runs: RunJobs,
  isHost: boolean,
): MeasuredEngine {
  const { store, settings } = context;
  const { schema } = store.tables;
  const depths = new ThrottledProbe(
    () => queueDepths(store.db, store.tables),
    settings.telemetry.queueInterval,
  );
  return {
    ...context,
    extensions,
    processes,
    runs,
    engine: schema === DEFAULT_SCHEMA ? settings.name : `${schema}/${settings.name}`,
    isHost,
    readQueueDepths: async () => (await depths.latest(QUEUE_DEPTH_WAIT_MS)) ?? [],
  };
}

/** Makes the names of registrations unique: an engine may have several sinks. */
let sinks = 0;

/** Sends the metrics of an engine (`METRICS`) to a sink. @returns stops it */
export function measure(measured: MeasuredEngine, sink: MetricSink): () => void {
  const name = `metrics ${++sinks}`;
  const { events } = measured;
  const sets = new AttributeSets({ 'bildad.engine': measured.engine });
  const records = recorders(measured, sink);
  const stops = [countEnqueues(name, measured, records, sets)];
  const on: typeof events.on = (event, listener) => {
    const off = events.on(event, listener);
    stops.push(off);
    return off;
  };
  if (!measured.isHost) {
    const all = sets.base;
    const ofJob = ({ templateCode }: { templateCode: string }) => ofCode(sets, templateCode);
    countRuns(on, records, sets);
    stops.push(countClaims(name, measured, records, sets));
    on('run.finishRejected', (run) => records.rejected(1, ofJob(run)));
    on('process.abandoned', (run) => records.abandoned(1, ofJob(run)));
    on('entry.quarantined', () => records.quarantined(1, all));
    on('engine.pass', () => records.passes(1, all));
    on('node.lost', () => records.nodesLost(1, all));
    on('node.fenced', () => records.fenced(1, all));
    on('database.lost', () => records.outages(1, all));
    on('engine.error', ({ error }) =>
      records.errors(
        1,
        sets.of('error', errorType(error), (type) => ({ [ERROR]: type })),
      ),
    );
    const gauges = Object.values<MetricDefinition>(METRICS).filter(({ kind }) => kind === 'gauge');
    stops.push(sink.observe(gauges, gaugeReader(measured, on, sets)));
  }
  return () => {
    for (const stop of stops.splice(0)) stop();
  };
}

/** A sink that throws is reported once, and disturbs no job. */
function recorders({ events }: MeasuredEngine, sink: MetricSink): Records {
  let reported = false;
  const guarded =
    (record: RecordMetric): RecordMetric =>
    (value, attributes) => {
      try {
        record(value, attributes);
      } catch (error) {
        if (reported) return;
        reported = true;
        events.emit('engine.error', { doing: 'recording a metric', error });
      }
    };
  const made = Object.entries<MetricDefinition>(METRICS)
    .filter(([, { kind }]) => kind !== 'gauge')
    .map(([name, metric]) => [name, guarded(sink.instrument(metric))]);
  return Object.fromEntries(made) as Records;
}

const ofCode = (sets: AttributeSets, code: string) =>
  sets.of('code', code, () => ({ [DESTINATION]: code }));

const messaging = (operation: 'send' | 'process', code: string) => ({
  [SYSTEM]: 'bildad',
  [OPERATION]: operation,
  [DESTINATION]: code,
});

function countEnqueues(
  name: string,
  { extensions }: MeasuredEngine,
  { sent, sendDuration }: Records,
  sets: AttributeSets,
): () => void {
  const attributesOf = (code: string, error?: string) => {
    // Callers may pass any number of codes without a template.
    const known = error === 'JobTemplateNotFoundError' ? OTHER : code;
    return sets.of(error === undefined ? 'send' : `send ${error}`, known, () => ({
      ...messaging('send', known),
      [ERROR]: error,
    }));
  };
  return extensions.aroundEnqueue.register(name, async ({ templateCode }, next) => {
    const startedAt = performance.now();
    let attributes: MetricAttributes | undefined;
    try {
      const enqueued = await next();
      attributes = attributesOf(templateCode);
      const count = Array.isArray(enqueued)
        ? enqueued.length
        : Number(!(enqueued as { deduplicated?: boolean }).deduplicated);
      if (count > 0) sent(count, attributes);
      return enqueued;
    } catch (error) {
      attributes = attributesOf(templateCode, errorType(error));
      sent(1, attributes);
      throw error;
    } finally {
      if (attributes) sendDuration((performance.now() - startedAt) / 1_000, attributes);
    }
  });
}

function countRuns(
  on: MeasuredEngine['events']['on'],
  { consumed, processDuration, finished }: Records,
  sets: AttributeSets,
): void {
  const startedAt = new Map<string, number>();
  on('run.started', ({ jobRunId, templateCode }) => {
    startedAt.set(jobRunId, performance.now());
    consumed(
      1,
      sets.of('process', templateCode, (code) => messaging('process', code)),
    );
  });
  on('run.finishRejected', ({ jobRunId }) => startedAt.delete(jobRunId));
  on('run.finished', (run) => {
    const started = startedAt.get(run.jobRunId);
    if (started !== undefined) {
      startedAt.delete(run.jobRunId);
      processDuration((performance.now() - started) / 1_000, durationAttributes(sets, run));
    }
    finished(1, outcomeAttributes(sets, run));
  });
}

function durationAttributes(
  sets: AttributeSets,
  { templateCode, outcome, errorName }: FinishedEvent,
): MetricAttributes {
  // Nearly all runs: no text is put together.
  const group = outcome === 'completed' ? 'took' : `took ${outcome} ${errorName ?? ''}`;
  return sets.of(group, templateCode, (code) => ({
    ...messaging('process', code),
    'bildad.outcome': outcome,
    [ERROR]: errorName ?? faultOf(outcome),
  }));
}

function outcomeAttributes(
  sets: AttributeSets,
  { templateCode, outcome, entry }: FinishedEvent,
): MetricAttributes {
  const usual = outcome === 'completed' && entry === 'removed';
  return sets.of(usual ? 'ended' : `ended ${outcome} ${entry}`, templateCode, (code) => ({
    [DESTINATION]: code,
    'bildad.outcome': outcome,
    'bildad.entry': entry,
  }));
}

function countClaims(
  name: string,
  { extensions }: MeasuredEngine,
  { claimed, claimDuration, wait }: Records,
  sets: AttributeSets,
): () => void {
  return extensions.afterClaim.register(name, (claims, tookMs) => {
    claimDuration(tookMs / 1_000, sets.base);
    if (claims.length === 0) return;
    claimed(claims.length, sets.base);
    for (const claim of claims)
      wait(Math.max(claim.waitedMs(), 0) / 1_000, ofCode(sets, claim.claimed.templateCode));
  });
}

/**
 * Reads the gauges. A template that once had a value keeps one, so that its series does not end.
 */
function gaugeReader(
  { processes, runs, settings, readQueueDepths }: MeasuredEngine,
  on: MeasuredEngine['events']['on'],
  sets: AttributeSets,
): () => Promise<GaugeReading[]> {
  let isAway = false;
  on('database.lost', () => (isAway = true));
  on('database.restored', () => (isAway = false));
  const seen = new Set<string>();

  return async () => {
    const running = new Map<string, number>();
    for (const code of seen) running.set(code, 0);
    for (const { run } of processes.all()) {
      seen.add(run.templateCode);
      running.set(run.templateCode, (running.get(run.templateCode) ?? 0) + 1);
    }
    const readings = new GaugeReadings();
    for (const [code, count] of running) readings.add(METRICS.running, count, ofCode(sets, code));
    readings.add(METRICS.unreachable, Number(isAway), sets.base);
    readings.add(METRICS.slots, settings.concurrency, sets.base);
    readings.add(METRICS.backlog, runs.backlog, sets.base);
    for (const depth of isAway ? [] : await readQueueDepths()) {
      for (const state of QUEUE_STATES) {
        const attributes = sets.of(state, depth.code, (code) => ({
          [DESTINATION]: code,
          'bildad.state': state,
        }));
        readings.add(METRICS.queued, depth[state], attributes);
      }
      readings.add(METRICS.oldest, (depth.oldestMs ?? 0) / 1_000, ofCode(sets, depth.code));
    }
    return readings.all();
  };
}

/**
 * Templates beyond the bound share one set of attributes: their counts are added, of their ages the
 * greatest counts.
 */
class GaugeReadings {
  private readonly byGauge = new Map<MetricDefinition, Map<MetricAttributes, GaugeReading>>();

  add(gauge: MetricDefinition, value: number, attributes: MetricAttributes): void {
    let readings = this.byGauge.get(gauge);
    if (!readings) this.byGauge.set(gauge, (readings = new Map()));
    const other = readings.get(attributes)?.value ?? 0;
    const joined = gauge === METRICS.oldest ? Math.max(value, other) : value + other;
    readings.set(attributes, { gauge, value: joined, attributes });
  }

  all(): GaugeReading[] {
    return [...this.byGauge.values()].flatMap((readings) => [...readings.values()]);
  }
}
