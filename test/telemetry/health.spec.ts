import { Controller, Get, Inject } from '@nestjs/common';
import {
  HealthCheck,
  HealthCheckService,
  HealthIndicatorService,
  TerminusModule,
} from '@nestjs/terminus';
import { BildadJob, JobEngineService } from 'nestjs-bildad';
import { BildadHealthIndicator } from 'nestjs-bildad/terminus';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GatedJob } from '../support/handlers.js';
import { bootHttp } from '../support/http.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// Facts about an engine, and the health checks built on them.

/** Reads of the queue wait for this lock, as they would on a queue of millions of entries. */
async function lockEntries({ dataSource }: Pick<TestApp, 'dataSource'>) {
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.query('LOCK TABLE bildad.job_queue_entries');
  return async () => {
    await runner.commitTransaction();
    await runner.release();
  };
}

describe('health() and liveness()', () => {
  it('health() and liveness() describe a healthy engine', async () => {
    const app = await bootApp({ providers: [GatedJob] });
    const { engine, jobs } = app;
    await engine.enqueueAndRunJob(GatedJob, {});
    const [node] = await jobs.listNodes();
    const health = await engine.health();
    expect(health).toEqual({
      name: 'default',
      role: 'all',
      node: node!.id,
      closing: false,
      fenced: false,
      outdated: false,
      heartbeatAgeMs: null,
      lagMs: expect.any(Number),
      running: 1,
      concurrency: 10,
      backlog: 0,
      database: { reachable: true, tookMs: expect.any(Number) },
      head: null,
      headKnown: true,
      unrunnable: [],
    });
    const liveness = engine.liveness();
    expect(health).toMatchObject({ ...liveness, lagMs: expect.any(Number) });
    expect(Object.keys(liveness)).toHaveLength(11);
    (await GatedJob.arrival()).door.open(null);
    await app.close();
    expect(engine.liveness()).toMatchObject({ closing: true, running: 0 });
    expect((await engine.health()).database).toMatchObject({
      reachable: false,
    });
  });

  it('the head of the queue is the entry that would be claimed next', async () => {
    const app = await bootApp({ providers: [GatedJob] });
    const { engine, sql } = app;
    await engine.enqueueJob(GatedJob, {}, { delay: '1h' });
    const low = await engine.enqueueJob(GatedJob, {}, { priority: 9 });
    const high = await engine.enqueueJob(GatedJob, {}, { priority: 1 });
    await sql(
      `UPDATE bildad.job_queue_entries SET run_at = run_at - interval '5 min' WHERE id = $1`,
      [low.id],
    );
    const head = (await engine.health()).head!;
    expect(head).toMatchObject({
      code: 'GATED',
      jobRunIdentifier: high.jobRunIdentifier,
      dueAt: expect.any(Date),
    });
    expect(head.waitedMs).toBeLessThan(60_000);
    await engine.removeJobFromQueue(high);
    const next = async () => (await engine.health()).head!;
    await expect.poll(async () => (await next()).jobRunIdentifier).toBe(low.jobRunIdentifier);
    expect((await next()).waitedMs).toBeGreaterThan(290_000);
    await app.close();
  });

  it('the database is reported as reachable while the search for the head of the queue takes long', async () => {
    const app = await bootApp({ providers: [GatedJob] });
    const { engine } = app;
    const first = await engine.enqueueJob(GatedJob, {}, { priority: 1 });
    await engine.enqueueJob(GatedJob, {});
    const unlock = await lockEntries(app);
    const began = performance.now();
    for (let probe = 0; probe < 2; probe++)
      expect(await engine.health({ timeout: 300 })).toMatchObject({
        database: { reachable: true },
        head: null,
        headKnown: false,
        unrunnable: [],
      });
    expect(performance.now() - began).toBeLessThan(1_000);
    await unlock();
    const head = async () => (await engine.health()).head?.jobRunIdentifier;
    await expect.poll(head).toBe(first.jobRunIdentifier);
    // After such a slow search, the next one waits.
    await engine.removeJobFromQueue(first);
    expect(await head()).toBe(first.jobRunIdentifier);
    await app.close();
  });

  it('a search that failed during an outage delays no search after it', async () => {
    const database = await createDatabase();
    const proxy = await startProxy(database.url);
    const app = await bootApp({
      database: { ...database, url: proxy.url },
      options: { queryTimeout: 1_000 },
      providers: [GatedJob],
    });
    const { engine } = app;
    const { jobRunIdentifier } = await engine.enqueueJob(GatedJob, {});
    const unlock = await lockEntries(app);
    expect((await engine.health({ timeout: 500 })).headKnown).toBe(false);
    proxy.blackhole();
    const silent = await engine.health({ timeout: 100 });
    expect(silent.database.reachable).toBe(false);
    await proxy.refuse();
    await unlock().catch(() => undefined);
    await proxy.pass();
    await expect
      .poll(async () => (await engine.health()).head?.jobRunIdentifier)
      .toBe(jobRunIdentifier);
    await app.close();
    await proxy.close();
    await database.drop();
  });

  it('liveness() has the age of the last heartbeat', async () => {
    const first = await bootApp();
    await first.jobs.updateJobConfig({ leaseMs: 1_000 });
    await first.app.close();
    const node = await bootApp({ database: first.database });
    await expect.poll(() => node.engine.liveness().heartbeatAgeMs).toBeTypeOf('number');
    expect(node.engine.liveness().heartbeatAgeMs).toBeLessThan(5_000);
    await node.app.close();
    await first.database.drop();
  });

  it('an entry without a handler is unrunnable and is not the head of the queue', async () => {
    @BildadJob({ code: 'GONE' })
    class GoneJob {
      runJob(): void {}
    }
    const before = await bootApp({ providers: [GoneJob] });
    await before.engine.enqueueJob(GoneJob, {});
    await before.sql(`UPDATE bildad.job_queue_entries SET run_at = run_at - interval '5 min'`);
    await before.app.close();
    const after = await bootApp({ database: before.database });
    const { head, unrunnable } = await after.engine.health();
    expect(head).toBeNull();
    expect(unrunnable).toMatchObject([{ code: 'GONE', active: true, count: 1 }]);
    await after.close();
    await before.database.drop();
  });

  it('wrong options are rejected', async () => {
    const app = await bootApp();
    for (const [options, field] of [
      [{ timeout: 'soon' }, 'timeout'],
      [{ timeout: 0 }, 'timeout'],
      [{ patience: 1 }, 'patience'],
    ] as [object, string][])
      await expect(app.engine.health(options)).rejects.toMatchObject({ field });
    await app.close();
  });
});

describe('nestjs-bildad/terminus', () => {
  const alive = (lagMs: number, maxLag?: string) =>
    new BildadHealthIndicator(new HealthIndicatorService(), {
      liveness: () => ({ heartbeatAgeMs: null, lagMs, running: 0, backlog: 0 }),
    } as unknown as JobEngineService).isAlive('jobs', {
      ...(maxLag && { maxLag }),
    });

  it('isAlive has only the event loop lag as a limit', () => {
    expect(alive(60_000).jobs.status).toBe('up');
    expect(alive(400, '500ms').jobs.status).toBe('up');
    expect(alive(600, '500ms').jobs).toMatchObject({
      status: 'down',
      why: ['the event loop is late'],
    });
    expect(() => alive(0, 'long')).toThrow(expect.objectContaining({ field: 'maxLag' }));
  });

  @Controller('health')
  class HealthController {
    constructor(
      @Inject(HealthCheckService) private readonly health: HealthCheckService,
      @Inject(BildadHealthIndicator)
      private readonly bildad: BildadHealthIndicator,
    ) {}

    @Get('live')
    @HealthCheck()
    live() {
      return this.health.check([() => this.bildad.isAlive('jobs')]);
    }

    @Get('ready')
    @HealthCheck()
    ready() {
      return this.health.check([() => this.bildad.isHealthy('jobs', { timeout: 300 })]);
    }

    @Get('strict')
    @HealthCheck()
    strict() {
      return this.health.check([
        () =>
          this.bildad.isHealthy('jobs', {
            maxWait: '1m',
            maxHeartbeatAge: '1m',
            failOnUnrunnable: true,
          }),
      ]);
    }
  }

  @BildadJob({ code: 'WAITING' })
  class WaitingJob {
    runJob(): void {}
  }

  let database: TestDatabase;
  let proxy: Proxy;
  let http: Awaited<ReturnType<typeof bootHttp>>;
  beforeAll(async () => {
    database = await createDatabase();
    proxy = await startProxy(database.url);
    http = await bootHttp({
      url: proxy.url,
      providers: [WaitingJob, BildadHealthIndicator],
      controllers: [HealthController],
      imports: [TerminusModule.forRoot({ logger: false })],
      bildad: { queryTimeout: 1_000 },
    });
  });
  afterAll(async () => {
    await http?.app.close();
    await proxy?.close();
    await database.drop();
  });

  const getHealth = async (path: string) => {
    const { status, body } = await http.ask(`/health/${path}`);
    const { details } = JSON.parse(body) as {
      details: { jobs: Record<string, unknown> };
    };
    return { status, jobs: details.jobs };
  };

  it('all health endpoints are up', async () => {
    for (const path of ['live', 'ready', 'strict']) {
      const { status, jobs } = await getHealth(path);
      expect(jobs['status'], path).toBe('up');
      expect(status).toBe(200);
    }
    expect((await getHealth('ready')).jobs).toMatchObject({
      database: 'up',
      running: 0,
      backlog: 0,
      waitedMs: 0,
      unrunnable: 0,
    });
  });

  it('a misspelt limit is rejected', async () => {
    const indicator = http.app.get(BildadHealthIndicator);
    for (const [limits, field] of [
      [{ maxwait: '1s' }, 'limits.maxwait'],
      [{ failOnUnrunnable: 'false' }, 'failOnUnrunnable'],
      ['1s', 'limits'],
    ] as const)
      await expect(indicator.isHealthy('jobs', limits as object)).rejects.toMatchObject({
        code: 'BILDAD_CONFIG',
        field,
      });
    expect(() => indicator.isAlive('jobs', { maxlag: '1s' } as object)).toThrow(
      /^limits\.maxlag is not an option: did you mean maxLag\? Known options: maxLag \(isAlive\)$/,
    );
  });

  it('a job that waits too long fails only the check with that limit', async () => {
    const engine = http.app.get(JobEngineService);
    const entry = await engine.enqueueJob(WaitingJob, {});
    await database.sql(`UPDATE bildad.job_queue_entries SET run_at = run_at - interval '5 min'`);
    await expect.poll(async () => (await getHealth('strict')).status).toBe(503);
    const { jobs } = await getHealth('strict');
    expect(jobs).toMatchObject({
      status: 'down',
      why: [expect.stringMatching(/^a job of WAITING waits since \d+ ms$/)],
    });
    expect(JSON.stringify(jobs)).not.toContain(entry.jobRunIdentifier);
    expect((await getHealth('ready')).status).toBe(200);
    await engine.removeJobFromQueue(entry);
    await expect.poll(async () => (await getHealth('strict')).status).toBe(200);
  });

  it('the check is down while the wait of the next job is unknown and limited', async () => {
    const known = await http.app.get(JobEngineService).health();
    const indicator = new BildadHealthIndicator(new HealthIndicatorService(), {
      health: async () => ({ ...known, head: null, headKnown: false }),
    } as unknown as JobEngineService);
    expect(await indicator.isHealthy('jobs')).toMatchObject({
      jobs: { status: 'up', waitedMs: null },
    });
    expect(await indicator.isHealthy('jobs', { maxWait: '1m' })).toMatchObject({
      jobs: {
        status: 'down',
        database: 'up',
        waitedMs: null,
        why: ['the wait of the next job is unknown'],
      },
    });
  });

  it('without the database the app is alive and not ready, and it is ready again after the outage', async () => {
    proxy.blackhole();
    const began = performance.now();
    const silent = await getHealth('ready');
    expect(performance.now() - began).toBeLessThan(1_500);
    expect(silent.status).toBe(503);
    expect(silent.jobs).toMatchObject({
      status: 'down',
      database: 'down',
      why: ['the database: timeout'],
    });
    expect((await getHealth('live')).status).toBe(200);
    await proxy.refuse();
    await proxy.pass();
    await expect.poll(async () => (await getHealth('ready')).status, { timeout: 10_000 }).toBe(200);
  });
});
