import type { JobEventMap } from '../../job/events.js';
import {
  DESTINATION,
  ERROR,
  METRICS,
  OPERATION,
  SYSTEM,
  type MetricAttributes,
  type MetricDefinition,
  type MetricName,
  type MetricSink,
  type RecordMetric,
} from '../../job/metrics.js';
import { errorType } from './error-type.js';
import { readGauges } from './gauges.js';
import { Kinds } from './kinds.js';
import type { Measured } from './measured.js';
import { OTHER, Series } from './series.js';

type Run = JobEventMap['run.started'][0];
type End = JobEventMap['run.finished'][0];

/** Makes the names of registrations unique: an engine may be measured more than once. */
let measurements = 0;

/** Tells a sink what an engine does, as `METRICS` has it. @returns how to end that */
export function measure(bildad: Measured, sink: MetricSink): () => void {
  const { events, engine, hosted } = bildad;
  const name = `metrics ${++measurements}`;
  const series = new Series({ 'bildad.engine': engine });
  const records = recorders(bildad, sink);
  const stops = [countSent(name, bildad, records, series)];
  const all = series.of('', () => ({}));
  const on: typeof events.on = (event, listener) => {
    const off = events.on(event, listener);
    stops.push(off);
    return off;
  };
  if (!hosted) {
    const kinds = new Kinds(series);
    countRuns(on, records, kinds);
    stops.push(countClaims(name, bildad, records, kinds, all));
    on('run.finishRejected', (run) => records.late(1, kinds.of(run.templateCode).itself));
    on('process.abandoned', (run) => records.abandoned(1, kinds.of(run.templateCode).itself));
    on('entry.quarantined', () => records.quarantined(1, all));
    on('engine.pass', () => records.passes(1, all));
    on('node.lost', () => records.nodesLost(1, all));
    on('node.fenced', () => records.fenced(1, all));
    on('database.lost', () => records.outages(1, all));
    on('engine.error', ({ error }) => {
      const type = errorType(error);
      const attributes = series.of(`error ${type}`, () => ({
        [ERROR]: type,
      }));
      records.errors(1, attributes);
    });
    const gauges = readGauges(bildad, on, series);
    stops.push(sink.observe(gauges.of, gauges.read));
  }
  return () => {
    for (const stop of stops.splice(0)) stop();
  };
}

type Records = Record<MetricName, RecordMetric>;

/** A sink that throws is reported once, and harms no job. */
function recorders({ events }: Measured, sink: MetricSink): Records {
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

function countSent(
  name: string,
  { extensions }: Measured,
  { sent, sendDuration }: Records,
  series: Series,
): () => void {
  const attributesOf = (code: string, error?: string) => {
    // Of codes that no template has there may be any number.
    const shown = error === 'JobTemplateNotFoundError' ? OTHER : code;
    return series.of(`send ${shown} ${error ?? ''}`, () => ({
      [SYSTEM]: 'bildad',
      [OPERATION]: 'send',
      [DESTINATION]: shown,
      [ERROR]: error,
    }));
  };
  return extensions.aroundEnqueue.register(name, async ({ templateCode }, next) => {
    const began = performance.now();
    let attributes: MetricAttributes | undefined;
    try {
      const made = await next();
      attributes = attributesOf(templateCode);
      const count = Array.isArray(made)
        ? made.length
        : Number(!(made as { deduplicated?: boolean }).deduplicated);
      if (count > 0) sent(count, attributes);
      return made;
    } catch (error) {
      attributes = attributesOf(templateCode, errorType(error));
      sent(1, attributes);
      throw error;
    } finally {
      if (attributes) sendDuration((performance.now() - began) / 1_000, attributes);
    }
  });
}

function countRuns(
  on: Measured['events']['on'],
  { consumed, processDuration, finished }: Records,
  kinds: Kinds,
): void {
  const startedAt = new Map<string, number>();
  on('run.started', ({ jobRunId, templateCode }: Run) => {
    startedAt.set(jobRunId, performance.now());
    consumed(1, kinds.of(templateCode).begin);
  });
  on('run.finishRejected', ({ jobRunId }) => startedAt.delete(jobRunId));
  on('run.finished', (end: End) => {
    const { took, ended } = kinds.of(end.templateCode).end(end);
    const began = startedAt.get(end.jobRunId);
    if (began !== undefined) {
      startedAt.delete(end.jobRunId);
      processDuration((performance.now() - began) / 1_000, took);
    }
    finished(1, ended);
  });
}

function countClaims(
  name: string,
  { extensions }: Measured,
  { claimed, claimDuration, wait }: Records,
  kinds: Kinds,
  all: MetricAttributes,
): () => void {
  return extensions.afterClaim.register(name, (claims, tookMs) => {
    claimDuration(tookMs / 1_000, all);
    if (claims.length === 0) return;
    claimed(claims.length, all);
    for (const claim of claims)
      wait(Math.max(claim.waitedMs(), 0) / 1_000, kinds.of(claim.claimed.templateCode).itself);
  });
}
