import { randomBytes, randomUUID } from 'node:crypto';
import { context, propagation, trace } from '@opentelemetry/api';
import {
  AlwaysOffSampler,
  InMemorySpanExporter,
  BasicTracerProvider,
} from '@opentelemetry/sdk-trace-base';
import { IsString } from 'class-validator';
import {
  BildadJob,
  type JobExecution,
  type JobHandler,
  type TelemetryOptions,
} from 'nestjs-bildad';
import { afterEach, beforeAll, afterAll, describe, expect, it } from 'vitest';
import { registerTracing, toRecordedSpan, type RecordedSpan } from '../fixtures/tracing-app.js';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';

// The spans that the app's SDK receives for jobs in this process.

const UNSET = 0;
const ERROR = 2;
const PRODUCER = 3;
const CONSUMER = 4;
const secret = `secret-${randomUUID()}`;

class TracedContext {
  @IsString() does!: string;
}
const door = gate();

class TracedHandler implements JobHandler<TracedContext> {
  runJob({ does }: TracedContext, job: JobExecution): unknown {
    switch (does) {
      case 'snooze':
        return job.retry === 0 ? job.snooze('1h') : undefined;
      case 'cancel':
        return job.cancel(secret);
      case 'fail':
        throw new RangeError(secret);
      case 'throw no error':
        // eslint-disable-next-line no-throw-literal
        throw secret;
      case 'ignore abort':
        return door.opened;
    }
    return trace.getActiveSpan()?.spanContext().spanId;
  }
}

@BildadJob({ code: 'TRACED', context: TracedContext, maxRetries: 0 })
class TracedJob extends TracedHandler {}
@BildadJob({ code: 'TX', context: TracedContext, maxRetries: 0, transactional: true })
class TransactionalJob extends TracedHandler {}
@BildadJob({ code: 'HIDDEN', context: TracedContext, maxRetries: 0, encrypt: true })
class HiddenJob extends TracedHandler {}

const exporter = new InMemorySpanExporter();
const boot = (telemetry?: boolean | TelemetryOptions) =>
  bootApp({
    providers: [TracedJob, TransactionalJob, HiddenJob],
    options: {
      ...(telemetry !== undefined && { telemetry }),
      encryption: {
        keys: { a: randomBytes(32).toString('base64') },
        current: 'a',
      },
    },
  });
let unregister: () => void;
beforeAll(() => {
  unregister = registerTracing(exporter);
});
afterAll(() => unregister());
afterEach(() => exporter.reset());

const spans = (): RecordedSpan[] => exporter.getFinishedSpans().map(toRecordedSpan);
const named = (name: string) => spans().filter((span) => span.name === name);

async function run({ engine }: TestApp, job: typeof TracedJob, does: string, options = {}) {
  const entry = await engine.enqueueAndRunJob(job, { does }, options);
  return engine.waitForJob(entry.jobRunIdentifier);
}

describe('an SDK without the telemetry option', () => {
  it('no span is created, and the job stores no trace', async () => {
    const app = await boot();
    const ended = await run(app, TracedJob, 'x');
    expect(ended.result).toBe('SUCCEEDED');
    const [row] = await app.sql<{ stored: unknown }>(
      'SELECT job_context AS stored FROM bildad.job_runs',
    );
    expect(row!.stored).toEqual({ does: 'x' });
    expect(spans()).toEqual([]);
    await app.close();
  });
});

describe('telemetry: true', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await boot(true);
  });
  afterAll(() => app.close());

  it('a job has a span for the enqueue and a linked span for the run', async () => {
    const { jobRunIdentifier, id, output } = await run(app, TracedJob, 'x');
    const [send, process] = spans();
    expect(send).toMatchObject({
      name: 'send TRACED',
      kind: PRODUCER,
      status: { code: UNSET },
      attributes: {
        'messaging.system': 'bildad',
        'messaging.destination.name': 'TRACED',
        'messaging.operation.name': 'send',
        'messaging.operation.type': 'send',
        'messaging.message.id': jobRunIdentifier,
        'bildad.engine': 'default',
      },
    });
    expect(process).toMatchObject({
      name: 'process TRACED',
      kind: CONSUMER,
      status: { code: UNSET },
      links: [{ traceId: send!.traceId, spanId: send!.spanId }],
      attributes: {
        'messaging.operation.name': 'process',
        'messaging.operation.type': 'process',
        'messaging.message.id': jobRunIdentifier,
        'bildad.run_id': id,
        'bildad.retry': 0,
        'bildad.outcome': 'completed',
      },
    });
    // The handler ran inside the span.
    expect(output).toBe(process!.spanId);
    expect(spans()).toHaveLength(2);
  });

  it('enqueueJobs has one span, and each run is linked to it', async () => {
    await app.engine.enqueueJobs(TracedJob, [{ does: 'x' }, { does: 'y' }]);
    await app.engine.runJobEngine();
    await expect.poll(() => named('process TRACED')).toHaveLength(2);
    const [send] = named('send TRACED');
    expect(send!.attributes).toMatchObject({
      'messaging.batch.message_count': 2,
    });
    for (const { links } of named('process TRACED'))
      expect(links).toEqual([{ traceId: send!.traceId, spanId: send!.spanId }]);
  });

  it('a deduplicated enqueue is marked on its span', async () => {
    const unique = { key: 'k' };
    const options = { unique, delay: '1h' };
    await app.engine.enqueueJob(TracedJob, { does: 'x' }, options);
    await app.engine.enqueueJob(TracedJob, { does: 'x' }, options);
    const [first, second] = named('send TRACED');
    expect(first!.attributes).not.toHaveProperty('bildad.deduplicated');
    expect(second!.attributes).toMatchObject({ 'bildad.deduplicated': true });
  });

  it('a rejected enqueue records the error class and no values', async () => {
    const wrong = { does: 7, [secret]: secret } as never;
    await expect(app.engine.enqueueJob(TracedJob, wrong)).rejects.toThrow();
    expect(spans()).toMatchObject([
      {
        status: { code: ERROR, message: 'InvalidJobContextError' },
        attributes: { 'error.type': 'InvalidJobContextError' },
      },
    ]);
    expect(JSON.stringify(spans())).not.toContain(secret);
  });

  it.each([
    ['fail', 'failed', 'RangeError', ERROR],
    ['throw no error', 'failed', 'string', ERROR],
    ['cancel', 'cancelled', undefined, UNSET],
    ['ignore abort', 'timedOut', 'timedOut', ERROR],
  ])('%s: %s', async (does, outcome, errorType, code) => {
    await run(app, TracedJob, does, { timeout: 20 });
    const [span] = named('process TRACED');
    expect(span!.status.code).toBe(code);
    expect(span!.attributes['bildad.outcome']).toBe(outcome);
    expect(span!.attributes['error.type']).toBe(errorType);
    expect(JSON.stringify(spans())).not.toContain(secret);
    if (does === 'ignore abort') {
      const ended = app.next('process.ended');
      door.open();
      await ended;
    }
  });

  it('a snoozed run is not an error', async () => {
    await app.engine.enqueueAndRunJob(TracedJob, { does: 'snooze' });
    await expect.poll(() => named('process TRACED')).toHaveLength(1);
    expect(named('process TRACED')[0]).toMatchObject({
      status: { code: UNSET },
      attributes: { 'bildad.outcome': 'snoozed' },
    });
  });

  it('jobs in a transaction, transactional jobs and encrypted jobs have spans', async () => {
    const { jobRunIdentifier } = await app.engine.transaction(() =>
      app.engine.enqueueJob(TransactionalJob, { does: 'x' }),
    );
    await app.engine.runJobEngine();
    const ended = await app.engine.waitForJob(jobRunIdentifier);
    expect(ended.output).toBe(named('process TX')[0]!.spanId);

    const hidden = await run(app, HiddenJob, 'x');
    expect(hidden.result).toBe('SUCCEEDED');
    expect(named('process HIDDEN')[0]!.links).toEqual([
      {
        traceId: named('send HIDDEN')[0]!.traceId,
        spanId: named('send HIDDEN')[0]!.spanId,
      },
    ]);
  });

  it.each([
    ['7', 'a number'],
    ['{"traceparent": 5}', 'a wrong header'],
    ['{"traceparent": "00-zz"}', 'a broken header'],
    ['null', 'nothing'],
  ])('a stored trace of %s (%s) is ignored', async (value) => {
    const entry = await app.engine.enqueueJob(TracedJob, { does: 'x' });
    await app.sql(
      `UPDATE bildad.job_queue_entries SET job_context = jsonb_set(job_context, '{$bildad,carried,trace}', $1::jsonb) WHERE id = $2`,
      [value, entry.id],
    );
    await app.engine.runJob(entry);
    const { result } = await app.engine.waitForJob(entry.jobRunIdentifier);
    expect(result).toBe('SUCCEEDED');
    expect(named('process TRACED')[0]!.links).toEqual([]);
  });
});

describe('options', () => {
  it("relation: 'parent' puts the run into the trace of the enqueue", async () => {
    const app = await boot({ relation: 'parent' });
    await run(app, TracedJob, 'x');
    const [send, process] = spans();
    expect(process).toMatchObject({
      traceId: send!.traceId,
      parentId: send!.spanId,
      links: [],
    });
    await app.close();
  });

  it('errorMessages records the messages of thrown errors, except for encrypted jobs', async () => {
    const app = await boot({ errorMessages: true });
    await run(app, TracedJob, 'fail');
    await run(app, HiddenJob, 'fail');
    await app.close();
    const [open] = named('process TRACED');
    expect(open!.status.message).toBe(secret);
    expect(open!.exceptions[0]).toMatchObject({ 'exception.message': secret });
    const [hidden] = named('process HIDDEN');
    expect(hidden!.exceptions).toEqual([{ 'exception.type': 'RangeError' }]);
    expect(JSON.stringify(hidden)).not.toContain(secret);
  });

  it('traces: false creates no spans', async () => {
    const app = await boot({ traces: false });
    await run(app, TracedJob, 'x');
    expect(spans()).toEqual([]);
    await app.close();
  });

  it('an unsampled trace is not stored with the job, but its baggage is', async () => {
    trace.disable();
    trace.setGlobalTracerProvider(new BasicTracerProvider({ sampler: new AlwaysOffSampler() }));
    const app = await boot(true);
    const stored = async () => {
      const entry = await app.engine.enqueueJob(TracedJob, { does: 'x' }, { delay: '1h' });
      const [row] = await app.sql<{ stored: object }>(
        'SELECT job_context AS stored FROM bildad.job_queue_entries WHERE id = $1',
        [entry.id],
      );
      await app.engine.removeJobFromQueue(entry);
      return row!.stored;
    };
    const baggage = propagation.createBaggage({ tenant: { value: 'acme' } });
    const inTenant = propagation.setBaggage(context.active(), baggage);
    const without = await stored();
    const within = await context.with(inTenant, stored);
    await app.close();
    unregister();
    unregister = registerTracing(exporter);
    expect(without).toEqual({ does: 'x' });
    expect(within).toMatchObject({
      $bildad: { carried: { trace: { baggage: 'tenant=acme' } } },
    });
  });

  const thrower = (what: string) => () => {
    throw new Error(what);
  };
  it.each([
    [
      'a propagator',
      () => {
        propagation.disable();
        propagation.setGlobalPropagator({
          inject: thrower('inject'),
          extract: thrower('extract'),
          fields: () => [],
        });
      },
    ],
    [
      'a sampler',
      () => {
        trace.disable();
        const shouldSample = thrower('sample');
        trace.setGlobalTracerProvider(
          new BasicTracerProvider({
            sampler: { shouldSample, toString: () => 'thrower' },
          }),
        );
      },
    ],
  ])('%s that throws is reported once, and jobs still run', async (_what, spoil) => {
    spoil();
    const app = await boot(true);
    const errors: string[] = [];
    app.events.on('engine.error', ({ doing }) => errors.push(doing));
    const ended = [await run(app, TracedJob, 'x'), await run(app, TracedJob, 'x')];
    await app.close();
    unregister();
    unregister = registerTracing(exporter);
    expect(ended.map(({ result }) => result)).toEqual(['SUCCEEDED', 'SUCCEEDED']);
    expect(errors).toEqual(['tracing a job']);
  });
});
