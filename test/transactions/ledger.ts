import { BildadJob, JobEngineService, type JobExecution, type JobHandler } from 'nestjs-bildad';
import { Inject } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import type { DataSource, EntityManager } from 'typeorm';
import { gate, type Gate } from '../support/gate.js';
import type { TestApp } from '../support/app.js';
import { expect } from 'vitest';

/** A handler that is held before its transaction is committed. */
export interface HeldHandler {
  job: JobExecution;
  door: Gate<unknown>;
}

export interface Effect {
  name: string;
  /** The handler waits until the test opens its gate. */
  hold?: boolean;
  fail?: string;
  /** An action on the transaction in addition to the insert. */
  act?: keyof typeof ACTS | 'leaveOpen';
}

type Self = { engine: JobEngineService; dataSource: DataSource };

export const ACTS = {
  none: () => undefined,
  sleepInSql: (_self: Self, manager: EntityManager) => manager.query('SELECT pg_sleep(60)'),
  swallow: (_self: Self, manager: EntityManager) =>
    manager.query('SELECT 1 / 0').catch(() => undefined),
  commitByHand: (_self: Self, manager: EntityManager) => manager.query('COMMIT'),
  enqueue: ({ engine }: Self) => engine.enqueueJob(EffectJob, { name: 'enqueued' }),
  enqueueOutside: ({ engine }: Self) =>
    engine.enqueueJob(EffectJob, { name: 'outside' }, { manager: null }),
  settings: async (_self: Self, manager: EntityManager) => {
    const [row] = await manager.query(
      `SELECT current_setting('transaction_isolation') AS level, current_setting('statement_timeout') AS statement,
         current_setting('idle_in_transaction_session_timeout') AS idle`,
    );
    return row as unknown;
  },
};

const arrivals: HeldHandler[] = [];
const waiting: ((handler: HeldHandler) => void)[] = [];

/** The next handler that is held. */
export const heldHandler = async (): Promise<HeldHandler> =>
  arrivals.shift() ?? new Promise((resolve) => waiting.push(resolve));

abstract class Effects implements JobHandler<Effect> {
  constructor(
    @Inject(JobEngineService) readonly engine: JobEngineService,
    @InjectDataSource() readonly dataSource: DataSource,
  ) {}

  async runJob({ name, hold, fail, act = 'none' }: Effect, job: JobExecution): Promise<unknown> {
    const { manager } = job;
    await manager.query('INSERT INTO ledger (name, run_id) VALUES ($1, $2)', [name, job.jobRunId]);
    const done: unknown = act !== 'leaveOpen' && (await ACTS[act](this, manager));
    if (fail) throw new Error(fail);
    return hold ? holdAt(job) : done;
  }
}

function holdAt(job: JobExecution): Promise<unknown> {
  const handler = { job, door: gate<unknown>() };
  const waiter = waiting.shift();
  if (waiter) waiter(handler);
  else arrivals.push(handler);
  return handler.door.opened;
}

/** Waits for that many heartbeats of the node, as another node sees them. */
export async function heartbeats({ sql }: Pick<TestApp, 'sql'>, times: number): Promise<void> {
  const processes = () => sql(`SELECT processes FROM bildad.job_nodes WHERE ended_at IS NULL`);
  for (let beat = 0; beat < times; beat++) {
    const before = await processes();
    await expect.poll(processes, { timeout: 10_000 }).not.toEqual(before);
  }
}

@BildadJob({ code: 'EFFECT', transactional: true, maxRetries: 1 })
export class EffectJob extends Effects {}

@BildadJob({
  code: 'SERIAL_EFFECT',
  transactional: { isolation: 'SERIALIZABLE' },
  maxRetries: 1,
})
export class SerialEffectJob extends Effects {}

/** Completes its run in its own transaction. */
@BildadJob({ code: 'BY_HAND', maxRetries: 1 })
export class ByHandJob implements JobHandler<Effect> {
  constructor(@InjectDataSource() readonly dataSource: DataSource) {}

  async runJob({ name, fail, act, hold }: Effect, job: JobExecution) {
    await this.dataSource
      .transaction(async (manager) => {
        await manager.query('INSERT INTO ledger (name, run_id) VALUES ($1, $2)', [
          name,
          job.jobRunId,
        ]);
        await job.complete(manager, { by: 'hand' });
        if (act === 'leaveOpen') await holdAt(job);
        if (act === 'swallow') throw new Error('rolled back');
      })
      .catch((error: unknown) => {
        if (act !== 'swallow') throw error;
      });
    if (hold) await holdAt(job);
    if (fail) throw new Error(fail);
    return { by: 'return' };
  }
}

export const createLedger = ({ sql }: Pick<TestApp, 'sql'>) =>
  sql('CREATE TABLE ledger (name text, run_id bigint)');

/** The number of rows by name. */
export async function effects({ sql }: Pick<TestApp, 'sql'>): Promise<Record<string, number>> {
  const found = await sql<{ name: string; n: number }>(
    'SELECT name, count(*)::int AS n FROM ledger GROUP BY name ORDER BY name',
  );
  return Object.fromEntries(found.map(({ name, n }) => [name, n]));
}
