/**
 * What isolation costs, and how fast it kills: `npm run bench:isolation`. No-op jobs one at a time and two at once, in
 * each isolation, side by side; then handlers that loop for ever, killed a hundred times. Two rounds are not counted.
 */
import { NestFactory } from '@nestjs/core';
import { JobEngineService, JobEvents, type HostKind, type Isolation } from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';
import pg from 'pg';
import { percentile, spread } from '../statistics.js';
import { CONCURRENCY, DATABASE_URL } from './app.module.js';

const JOBS = 2_000;
const ROUNDS = 5;
const COLD_ROUNDS = 2;
const KILLS = 100;
const ISOLATIONS = ['inline', 'thread', 'process'] as const;
const KINDS = ['thread', 'process'] as const;
const MIB = 1_048_576;

const server = await startPostgres({ settings: { synchronous_commit: 'off' } });
process.env[DATABASE_URL] = server.url;

async function withApp<T>(
  concurrency: number,
  use: (engine: JobEngineService, events: JobEvents) => Promise<T>,
): Promise<T> {
  process.env[CONCURRENCY] = String(concurrency);
  // Its options are read when it is loaded.
  const { IsolationBench } = (await import(
    `./app.module.js?concurrency=${concurrency}`
  )) as typeof import('./app.module.js');
  const app = await NestFactory.createApplicationContext(IsolationBench, {
    logger: ['error'],
  });
  try {
    return await use(app.get(JobEngineService), app.get(JobEvents));
  } finally {
    await app.close();
  }
}

/** @returns milliseconds a job */
async function drain(
  engine: JobEngineService,
  events: JobEvents,
  isolation: Isolation,
): Promise<number> {
  let left = JOBS;
  const over = new Promise<void>((resolve) => {
    const off = events.on('run.finished', () => {
      if (--left > 0) return;
      off();
      resolve();
    });
  });
  await engine.enqueueJobs(
    `NOOP_${isolation}`,
    Array.from({ length: JOBS }, () => ({})),
  );
  const began = performance.now();
  await over;
  return (performance.now() - began) / JOBS;
}

async function costs(concurrency: number) {
  const taken: Record<Isolation, number[]> = {
    inline: [],
    thread: [],
    process: [],
  };
  await withApp(concurrency, async (engine, events) => {
    for (let round = 0; round < COLD_ROUNDS + ROUNDS; round++)
      for (const isolation of ISOLATIONS) {
        const ms = await drain(engine, events, isolation);
        if (round >= COLD_ROUNDS) taken[isolation].push(ms);
      }
  });
  return Object.fromEntries(
    ISOLATIONS.map((isolation) => {
      const { min, median, max } = spread(taken[isolation])!;
      return [
        isolation,
        {
          'ms a job': Number(median.toFixed(3)),
          'min - max': `${min.toFixed(3)} - ${max.toFixed(3)}`,
          'jobs/s': Math.round(1_000 / median),
        },
      ];
    }),
  );
}

async function killOne(
  engine: JobEngineService,
  events: JobEvents,
  kind: HostKind,
): Promise<number> {
  const started = new Promise<string>((resolve) => {
    const off = events.on('run.started', ({ jobRunId }) => {
      off();
      resolve(jobRunId);
    });
  });
  await engine.enqueueJob(`SPIN_${kind}`, {});
  const id = await started;
  const began = performance.now();
  const killing = engine.killJob({ id });
  while (engine.findJobProcess({ id })) await new Promise((resolve) => setImmediate(resolve));
  const ms = performance.now() - began;
  await killing;
  return ms;
}

async function backends(): Promise<number> {
  const client = new pg.Client(server.url);
  await client.connect();
  try {
    const { rows } = await client.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM pg_stat_activity WHERE backend_type = 'client backend'`,
    );
    return rows[0]!.count;
  } finally {
    await client.end();
  }
}

const held = async () => ({
  'RSS MiB': Math.round(process.memoryUsage.rss() / MIB),
  'handles and threads': process.getActiveResourcesInfo().length,
  connections: await backends(),
});

const one = await costs(1);
const two = await costs(2);
console.log('one at a time');
console.table(one);
console.log('two at once');
console.table(two);

const kills = await withApp(2, async (engine, events) => {
  const taken: Record<HostKind, number[]> = { thread: [], process: [] };
  const sizes: Record<string, object> = {};
  for (let n = 0; n <= KILLS; n++) {
    const kind = KINDS[n % KINDS.length]!;
    taken[kind].push(await killOne(engine, events, kind));
    if (n % 20 === 0) sizes[`after ${n} kills`] = await held();
  }
  return { taken, sizes };
});
console.log('from killJob to the slot that is free, ms');
console.table(
  Object.fromEntries(
    KINDS.map((kind) => [
      kind,
      {
        p50: Number(percentile(kills.taken[kind], 0.5).toFixed(1)),
        p99: Number(percentile(kills.taken[kind], 0.99).toFixed(1)),
      },
    ]),
  ),
);
console.table(kills.sizes);
await server.stop();
