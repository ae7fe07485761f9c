import { metrics } from '@opentelemetry/api';
import {
  DataPointType,
  MeterProvider,
  MetricReader,
  type DataPoint,
  type Histogram,
} from '@opentelemetry/sdk-metrics';
import {
  BILDAD_METRICS,
  BildadModule,
  BildadJob,
  JobEngineService,
  type JobExecution,
  type MetricAttributes,
  type MetricDefinition,
  type MetricSink,
} from 'nestjs-bildad';
import { BildadPrometheusModule, collectBildad } from 'nestjs-bildad/prometheus';
import { Registry } from 'prom-client';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GatedJob } from '../support/handlers.js';
import { QUIET } from '../support/host.js';
import { bootHttp, type Platform } from '../support/http.js';

// All sinks (OpenTelemetry, Prometheus, custom) receive the same metrics.

@BildadJob({ code: 'MEASURED', maxRetries: 1 })
class MeasuredJob {
  runJob({ fail }: { fail?: boolean }, job: JobExecution): void {
    if (fail && job.retry === 0) throw new RangeError('once');
  }
}

class PullReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

/**
 * Runs two jobs, one of which fails once and is retried. One more job waits, one runs, and one
 * is rejected.
 */
async function work({ engine, next }: TestApp): Promise<void> {
  const reopened = next('run.finished', ({ entry }) => entry === 'reopened');
  await engine.enqueueJobs(MeasuredJob, [{}, { fail: true }]);
  await engine.runJobEngine();
  await reopened;
  const removed = next('run.finished', ({ retry }) => retry === 1);
  await engine.runJobEngine();
  await removed;
  await engine.enqueueJob(MeasuredJob, {}, { delay: '1h' });
  await engine.enqueueAndRunJob(GatedJob, {});
  await expect(engine.enqueueJob('NOBODY', {})).rejects.toThrow();
}

interface Value {
  value: number;
  attributes: MetricAttributes;
}
const of = (values: Value[], fits: MetricAttributes) =>
  values
    .filter(({ attributes }) =>
      Object.entries(fits).every(([name, value]) => attributes[name] === value),
    )
    .map(({ value }) => value);

const CODE = 'messaging.destination.name';

/** Checks the values that a sink has received from `work`. A histogram counts its values. */
function check(seen: (metric: MetricDefinition) => Value[]): void {
  const M = BILDAD_METRICS;
  const sum = (metric: MetricDefinition, fits: MetricAttributes = {}) =>
    of(seen(metric), fits).reduce((total, value) => total + value, 0);
  expect(sum(M.sent, { [CODE]: 'MEASURED' })).toBe(3);
  expect(sum(M.sent, { 'error.type': 'JobTemplateNotFoundError' })).toBe(1);
  expect(sum(M.sendDuration, { [CODE]: 'MEASURED' })).toBe(2);
  expect(sum(M.consumed, { [CODE]: 'MEASURED' })).toBe(3);
  expect(sum(M.processDuration, { [CODE]: 'MEASURED', 'error.type': 'RangeError' })).toBe(1);
  expect(sum(M.finished, { 'bildad.outcome': 'failed', 'bildad.entry': 'reopened' })).toBe(1);
  expect(
    sum(M.finished, {
      'bildad.outcome': 'completed',
      'bildad.entry': 'removed',
    }),
  ).toBe(2);
  expect(sum(M.wait, { [CODE]: 'MEASURED' })).toBe(3);
  expect(sum(M.claimed)).toBe(3);
  expect(sum(M.claimDuration)).toBeGreaterThanOrEqual(2);
  expect(sum(M.passes)).toBeGreaterThanOrEqual(2);
  expect(of(seen(M.running), { [CODE]: 'GATED' })).toEqual([1]);
  expect(of(seen(M.slots), {})).toEqual([10]);
  expect(of(seen(M.unreachable), {})).toEqual([0]);
  expect(of(seen(M.backlog), {})).toEqual([0]);
  const state = (code: string, name: string) =>
    of(seen(M.queued), { [CODE]: code, 'bildad.state': name });
  expect(state('MEASURED', 'scheduled')).toEqual([1]);
  expect(state('MEASURED', 'due')).toEqual([0]);
  expect(state('GATED', 'running')).toEqual([1]);
  expect(of(seen(M.oldest), { [CODE]: 'MEASURED' })).toEqual([0]);
  for (const metric of Object.values<MetricDefinition>(M))
    for (const { attributes } of seen(metric)) {
      expect(attributes['bildad.engine']).toBe('default');
      expect(metric.attributes).toEqual(expect.arrayContaining(Object.keys(attributes)));
    }
}

const boot = (options = {}) => bootApp({ providers: [MeasuredJob, GatedJob], options });
async function end(app: TestApp): Promise<void> {
  (await GatedJob.arrival()).door.open(null);
  await app.close();
}

it('docs/telemetry.md lists the metrics as declared', async () => {
  const page = await readFile(new URL('../../docs/telemetry.md', import.meta.url), 'utf8');
  const listed = page
    .split('\n')
    .filter((line) => /^\| `(bildad|messaging)\.[a-z._]+` \|/.test(line))
    .map((line) => line.split(' | '));
  expect(listed.map(([name, kind]) => [name!.replaceAll(/[|` ]/g, ''), kind])).toEqual(
    Object.values(BILDAD_METRICS).map(({ name, kind }) => [name, kind]),
  );
  expect(listed.map((cells) => cells.at(-1)!.replace(/ \|$/, ''))).toEqual(
    Object.values(BILDAD_METRICS).map(({ description }) => description),
  );
});

it('OpenTelemetry receives all metrics', async () => {
  const reader = new PullReader();
  const provider = new MeterProvider({ readers: [reader] });
  metrics.setGlobalMeterProvider(provider);
  try {
    const app = await boot({ telemetry: { traces: false } });
    await work(app);
    const { resourceMetrics, errors } = await reader.collect();
    expect(errors).toEqual([]);
    const collected = resourceMetrics.scopeMetrics.flatMap((scope) => scope.metrics);
    check(({ name, unit, description }) => {
      const found = collected.find(({ descriptor }) => descriptor.name === name);
      if (!found) return [];
      expect(found.descriptor).toMatchObject({ unit, description });
      const isHistogram = found.dataPointType === DataPointType.HISTOGRAM;
      return (found.dataPoints as DataPoint<unknown>[]).map(({ value, attributes }) => ({
        value: isHistogram ? (value as Histogram).count : (value as number),
        attributes: attributes as MetricAttributes,
      }));
    });
    await end(app);
    // The gauges of a closed engine are no longer read.
    const after = await reader.collect();
    expect(after.errors).toEqual([]);
  } finally {
    metrics.disable();
    await provider.shutdown();
  }
});

it('a custom sink receives all metrics until it is removed', async () => {
  const app = await boot();
  const seen = new Map<string, Value[]>();
  const add = (name: string, value: Value) =>
    void (seen.get(name) ?? seen.set(name, []).get(name)!).push(value);
  let read: Parameters<MetricSink['observe']>[1] = async () => [];
  const stop = app.engine.measure({
    instrument:
      ({ name, kind }) =>
      (value, attributes) =>
        add(name, { value: kind === 'histogram' ? 1 : value, attributes }),
    observe: (gauges, ask) => {
      expect(gauges.every(({ kind }) => kind === 'gauge')).toBe(true);
      read = ask;
      return () => void (read = async () => []);
    },
  });
  await work(app);
  for (const { gauge, ...value } of await read()) add(gauge.name, value);
  check(({ name }) => seen.get(name) ?? []);
  stop();
  seen.clear();
  await app.engine.enqueueJob(MeasuredJob, {});
  await app.engine.runJobEngine();
  expect(await read()).toEqual([]);
  await end(app);
  expect([...seen.keys()]).toEqual([]);
});

it('thousands of removed sinks leave nothing behind', async () => {
  const app = await bootApp({ providers: [MeasuredJob] });
  const sink: MetricSink = { instrument: () => () => {}, observe: () => () => {} };
  for (let i = 0; i < 15_000; i++) app.engine.measure(sink)();
  const { jobRunIdentifier } = await app.engine.enqueueAndRunJob(MeasuredJob, {});
  expect(await app.engine.waitForJob(jobRunIdentifier)).toMatchObject({ result: 'SUCCEEDED' });
  await app.close();
});

it('a sink that throws is reported once and fails no job', async () => {
  const app = await boot();
  const errors: string[] = [];
  app.events.on('engine.error', ({ doing }) => errors.push(doing));
  app.engine.measure({
    instrument: () => () => {
      throw new Error('full');
    },
    observe: () => () => {},
  });
  await work(app);
  await end(app);
  expect(errors).toEqual(['recording a metric']);
});

it('during an outage a collection returns the gauges that need no database', async () => {
  const app = await boot({ queryTimeout: 500 });
  let read: Parameters<MetricSink['observe']>[1] = async () => [];
  app.engine.measure({
    instrument: () => () => {},
    observe: (_gauges, ask) => {
      read = ask;
      return () => {};
    },
  });
  app.events.emit('database.lost', { error: new Error('x') });
  const names = new Set((await read()).map(({ gauge }) => gauge.name));
  expect(names).toContain('bildad.slots');
  expect(names).not.toContain('bildad.queue.jobs');
  expect(of((await read()) as never, {})).toContain(1);
  await app.close();
});

describe('Prometheus', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase();
  });
  afterAll(() => database.drop());

  it.each<Platform>(['express', 'fastify'])(
    'a scrape over HTTP returns the metrics, %s',
    async (platform) => {
      const registry = new Registry();
      const { app, ask } = await bootHttp({
        url: database.url,
        platform,
        providers: [MeasuredJob],
        imports: [BildadPrometheusModule.forRoot({ registry })],
        prefix: 'api',
      });
      const engine = app.get(JobEngineService);
      const entry = await engine.enqueueAndRunJob(MeasuredJob, {});
      await engine.waitForJob(entry.jobRunIdentifier);
      const { status, type, body } = await ask('/api/metrics');
      expect(status).toBe(200);
      expect(type).toMatch(/^text\/plain; version=0.0.4/);
      const text = parse(body);
      const labels = 'bildad_engine="default"';
      expect(text.types).toMatchObject({
        messaging_client_sent_messages_total: 'counter',
        messaging_process_duration_seconds: 'histogram',
        bildad_queue_jobs: 'gauge',
      });
      const value = (name: string, ...parts: string[]) =>
        text.samples
          .filter((one) => one.name === name)
          .filter((one) => parts.every((part) => one.labels.includes(part)))
          .map((one) => one.value);
      const code = 'messaging_destination_name="MEASURED"';
      expect(value('messaging_client_sent_messages_total', code, labels)).toEqual([1]);
      expect(value('messaging_process_duration_seconds_count', code)).toEqual([1]);
      expect(value('bildad_queue_jobs', code, 'bildad_state="running"')).toEqual([0]);
      expect(value('bildad_slots', labels)).toEqual([10]);
      await app.close();
      const after = await registry.metrics();
      expect(after).toContain('messaging_client_sent_messages_total{');
      expect(after).not.toContain('bildad_slots{');
    },
  );

  it('a cleared registry has the metrics again with the next app', async () => {
    const registry = new Registry();
    for (const _ of ['first', 'second']) {
      const { app } = await bootHttp({
        url: database.url,
        providers: [MeasuredJob],
        imports: [BildadPrometheusModule.forRoot({ registry, path: false })],
      });
      await app.get(JobEngineService).enqueueJob(MeasuredJob, {});
      const { samples } = parse(await registry.metrics());
      const names = samples.map(({ name }) => name);
      expect(names).toContain('bildad_slots');
      expect(names).toContain('messaging_client_sent_messages_total');
      await app.close();
      registry.clear();
    }
  });

  it('two engines share one registry', async () => {
    const registry = new Registry();
    const engines = ['a', 'b'].map((name) => {
      class EngineModule {}
      return {
        module: EngineModule,
        imports: [
          BildadModule.forRoot({
            ...QUIET,
            name,
            isGlobal: false,
            concurrency: name === 'a' ? 3 : 4,
          }),
        ],
        providers: [{ provide: name, useExisting: JobEngineService }],
      };
    });
    const { app } = await bootHttp({ url: database.url, bildad: engines });
    for (const name of ['a', 'b']) collectBildad(app.get(name, { strict: false }), registry);
    const { samples } = parse(await registry.metrics());
    expect(samples.filter(({ name }) => name === 'bildad_slots').map((s) => s.value)).toEqual([
      3, 4,
    ]);
    await app.close();
  });
});

/** Parses the text format strictly: an unknown line fails the test. */
function parse(text: string) {
  const types: Record<string, string> = {};
  const samples: { name: string; labels: string; value: number }[] = [];
  for (const line of text.split('\n').filter(Boolean)) {
    const type = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (type) types[type[1]!] = type[2]!;
    else if (!/^# HELP \S+ \S/.test(line)) {
      const sample = /^([a-z_]+)(?:\{((?:[a-z_]+="[^"]*",?)*)\})? (\S+)$/.exec(line);
      expect(sample, line).not.toBeNull();
      const [, name, labels = '', value] = sample!;
      samples.push({ name: name!, labels, value: Number(value) });
    }
  }
  return { types, samples };
}
