import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RecordedSpan } from '../fixtures/tracing-app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startWorker, type Worker } from '../support/worker.js';

// One process enqueues inside a request's trace, and another one runs the job inline, in a thread
// or in a process. Each process and thread has its own SDK.

const file = join(tmpdir(), `spans-${randomUUID()}.jsonl`);
let database: TestDatabase;
let producer: Worker;
let worker: Worker;
beforeAll(async () => {
  database = await createDatabase();
  const env = { SPANS_FILE: file };
  worker = await startWorker(database.url, env, 'tracing-node');
  producer = await startWorker(database.url, { ...env, ROLE: 'producer' }, 'tracing-node');
});
afterAll(async () => {
  await Promise.all([producer?.terminate(), worker?.terminate()]);
  await database.drop();
  rmSync(file, { force: true });
});

const spans = () =>
  existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as RecordedSpan)
    : [];
const found = async (fits: (span: RecordedSpan) => boolean): Promise<RecordedSpan> => {
  let span: RecordedSpan | undefined;
  await expect.poll(() => (span = spans().find(fits)), { timeout: 10_000 }).toBeDefined();
  return span!;
};

it.each(['INLINE', 'THREAD', 'PROCESS'])(
  'the run of a TRACED_%s is linked to the request that enqueued it in another process',
  async (kind) => {
    const code = `TRACED_${kind}`;
    producer.process.send(code);
    const [{ traceId, jobRunIdentifier }] = (await once(producer.process, 'message')) as [
      { traceId: string; jobRunIdentifier: string },
    ];

    const sent = await found(({ name, traceId: its }) => {
      return name === `send ${code}` && its === traceId;
    });
    const run = await found(
      ({ name, attributes }) =>
        name === `process ${code}` && attributes['messaging.message.id'] === jobRunIdentifier,
    );
    expect(run.links).toEqual([{ traceId, spanId: sent.spanId }]);
    expect(run.traceId).not.toBe(traceId);
    expect(run.parentId).toBeUndefined();
    expect(run.where).not.toBe(sent.where);
    const inWorker = run.where === `${worker.process.pid}/0`;
    expect(inWorker).toBe(kind === 'INLINE');

    const child = await found(
      ({ name, parentId }) => name === 'send TRACED_CHILD' && parentId === run.spanId,
    );
    expect(child).toMatchObject({ traceId: run.traceId, where: run.where });

    await expect
      .poll(async () => {
        const [row] = await database.sql<{ output: unknown }>(
          'SELECT output FROM bildad.job_runs WHERE job_run_identifier = $1',
          [jobRunIdentifier],
        );
        return row?.output;
      })
      .toEqual({ traceId: run.traceId, baggage: 'acme' });
  },
);
