import { metrics } from '@opentelemetry/api';
import { MeterProvider, MetricReader, type DataPoint } from '@opentelemetry/sdk-metrics';
import {
  BILDAD_METRICS,
  BildadJob,
  type GaugeReading,
  type MetricAttributes,
  type MetricSink,
} from 'nestjs-bildad';
import { collectBildad } from 'nestjs-bildad/prometheus';
import { Registry } from 'prom-client';
import { afterEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// Any number of codes and error classes from outside creates only few series, and no count is lost.

const CODE = 'messaging.destination.name';
const { sent, finished, queued, oldest } = BILDAD_METRICS;

@BildadJob({ code: 'ASKED_FOR', maxRetries: 0 })
class FailingJob {
  runJob(): void {
    throw new RangeError('no');
  }
}

let app: TestApp;
afterEach(() => app.close());

class PullReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

async function unknown(count: number, codeOf: (n: number) => string) {
  for (let at = 0; at < count; at += 100)
    await Promise.allSettled(
      Array.from({ length: Math.min(100, count - at) }, (_value, n) =>
        app.engine.enqueueJob(codeOf(at + n), {}),
      ),
    );
}

/** The attributes and gauges that the engine reports from now on. */
function recordMetrics() {
  const recorded = new Map<string, MetricAttributes[]>();
  let read: () => Promise<readonly GaugeReading[]> = async () => [];
  const sink: MetricSink = {
    instrument:
      ({ name }) =>
      (_value, attributes) =>
        void recorded.set(name, [...(recorded.get(name) ?? []), attributes]),
    observe: (_gauges, ask) => {
      read = ask;
      return () => {};
    },
  };
  app.engine.measure(sink);
  return { recorded, read: () => read() };
}

it('calls with unknown codes are one series in OpenTelemetry', async () => {
  const reader = new PullReader();
  const provider = new MeterProvider({ readers: [reader] });
  metrics.setGlobalMeterProvider(provider);
  try {
    app = await bootApp({ options: { telemetry: { traces: false } } });
    await unknown(10, () => 'A');
    await unknown(1, () => 'B');
    const { resourceMetrics } = await reader.collect();
    const points = resourceMetrics.scopeMetrics
      .flatMap((scope) => scope.metrics)
      .filter(({ descriptor }) => descriptor.name === sent.name)
      .flatMap(({ dataPoints }) => dataPoints as DataPoint<number>[]);
    expect(points).toMatchObject([{ value: 11, attributes: { [CODE]: '_OTHER' } }]);
  } finally {
    metrics.disable();
    await provider.shutdown();
  }
});

it('unknown codes use up no series of known codes', async () => {
  app = await bootApp({ providers: [FailingJob] });
  const { recorded } = recordMetrics();
  await unknown(5_100, (n) => `NOBODY_${n}`);
  expect(new Set(recorded.get(sent.name)).size).toBe(1);
  const failed = app.next('run.failed');
  await app.engine.enqueueAndRunJob(FailingJob, {});
  await failed;
  expect(recorded.get(sent.name)!.at(-1)).toMatchObject({ [CODE]: 'ASKED_FOR' });
  expect(recorded.get(finished.name)).toMatchObject([
    { [CODE]: 'ASKED_FOR', 'bildad.outcome': 'failed' },
  ]);
});

/** Each template has one due job. The last template's job is due for the longest time. */
async function manyTemplates(count: number) {
  await app.sql(
    `INSERT INTO bildad.job_templates (code, name, job_module_name)
     SELECT 'T' || lpad(n::text, 4, '0'), n, 'none' FROM generate_series(1, ${count}) n`,
  );
  await app.sql(
    `INSERT INTO bildad.job_queue_entries (job_template_id, job_run_identifier, timeout_ms, max_retries, job_context, run_at)
     SELECT id, code, 1000, 0, '{}', now() - substr(code, 2)::int * interval '1 min'
     FROM bildad.job_templates WHERE code LIKE 'T0%'`,
  );
}

it('gauges of codes beyond the limit are one reading', async () => {
  app = await bootApp();
  await manyTemplates(520);
  const { read } = recordMetrics();
  const of = async (name: string, fits: MetricAttributes) =>
    (await read())
      .filter(({ gauge }) => gauge.name === name)
      .filter(({ attributes }) =>
        Object.entries(fits).every(([key, value]) => attributes[key] === value),
      )
      .map(({ value }) => value);
  const due = { 'bildad.state': 'due' };
  expect(await of(queued.name, due)).toHaveLength(501);
  expect(await of(queued.name, { ...due, [CODE]: '_OTHER' })).toEqual([20]);
  expect(await of(queued.name, { ...due, [CODE]: 'T0001' })).toEqual([1]);
  const [age, ...others] = await of(oldest.name, { [CODE]: '_OTHER' });
  expect(others).toEqual([]);
  expect(age).toBeGreaterThanOrEqual(520 * 60);
  expect(age).toBeLessThan(521 * 60);

  const registry = new Registry();
  collectBildad(app.engine, registry);
  expect(await registry.metrics()).toMatch(
    /bildad_queue_jobs\{[^}]*"_OTHER"[^}]*"due"[^}]*\} 20\n/,
  );
});

it('metrics without a code and an error class keep their own series beyond the limit', async () => {
  app = await bootApp({ providers: [FailingJob] });
  await manyTemplates(520);
  const { recorded, read } = recordMetrics();
  await read();
  const failed = app.next('run.failed');
  await app.engine.enqueueAndRunJob(FailingJob, {});
  await failed;
  expect(recorded.get(finished.name)).toMatchObject([
    { 'bildad.outcome': 'failed', 'bildad.entry': 'removed' },
  ]);
  expect(recorded.get(BILDAD_METRICS.processDuration.name)).toMatchObject([
    { 'messaging.system': 'bildad', 'error.type': 'RangeError' },
  ]);
});
