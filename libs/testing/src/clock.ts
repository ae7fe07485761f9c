import { BildadConfigError, toMilliseconds, type Duration } from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { bySchema, TABLES_OF_JOBS, type TestEngine } from './engines.js';

/** Columns of leases, which a node keeps renewing. */
const LEASES = ['expires_at', 'claim_expires_at'];
/** Not a time, but the mark of a job that waits for its key (`onConflict: 'keepLatest'`). */
export const WAITS_FOR_KEY = '9999-12-31T23:59:59.999Z';

/**
 * The time of jobs. It advances by moving the stored times of jobs into the past: due times,
 * backoffs, delays, `startBefore`, timeouts, keys and history. Clocks do not change: `new Date()`, the
 * database's clock, leases and heartbeats.
 */
export class TestClock {
  private aheadMs = 0;

  constructor(private readonly engines: () => readonly TestEngine[]) {}

  /** The real time plus the advanced time. */
  now(): Date {
    return new Date(Date.now() + this.aheadMs);
  }

  /**
   * Advances the time of all jobs. Jobs that exceed their timeout are stopped, and have ended or were abandoned
   * when this resolves. Due jobs are started as usual: by `drain()` in the mode `manual`.
   * @param by a duration, as `'1h'` or ms
   */
  async advance(by: Duration): Promise<void> {
    const ms = toMilliseconds(by, 'by');
    if (ms === 0) return;
    this.aheadMs += ms;
    for (const [engine] of bySchema(this.engines()))
      await move(engine!.dataSource, engine!.schema, ms);
    await Promise.all(this.engines().map(stopLate));
  }

  /** Advances the time to `to`. @throws BildadConfigError when `now()` is later */
  async set(to: Date): Promise<void> {
    const ms = to instanceof Date ? to.getTime() - this.now().getTime() : NaN;
    if (!(ms >= 0))
      throw new BildadConfigError('to', 'must be a Date that is not before clock.now()', {
        got: to,
        where: 'clock.set',
      });
    await this.advance(ms);
  }

  /** @internal The advanced time, which a rollback restores. */
  get mark(): number {
    return this.aheadMs;
  }

  /** @internal */
  reset(mark: number): void {
    this.aheadMs = mark;
  }
}

/** Moves all times of a table in one statement, so that no reader sees a mix. */
async function move(dataSource: DataSource, schema: string, ms: number): Promise<void> {
  const columns: { table: string; columns: string[] }[] = await dataSource.query(
    `SELECT table_name AS "table", array_agg(column_name::text) AS columns FROM information_schema.columns
       WHERE table_schema = $1 AND data_type = 'timestamp with time zone'
         AND table_name = ANY ($2) AND column_name <> ALL ($3) AND is_generated = 'NEVER'
       GROUP BY table_name`,
    [schema, TABLES_OF_JOBS, LEASES],
  );
  await dataSource.transaction(async (manager) => {
    for (const { table, columns: names } of columns) {
      const set = names.map(
        (name) =>
          `"${name}" = CASE WHEN "${name}" = $2 THEN "${name}" ELSE "${name}" - $1 * interval '1 ms' END`,
      );
      await manager.query(`UPDATE "${schema}"."${table}" SET ${set.join(', ')}`, [
        ms,
        WAITS_FOR_KEY,
      ]);
    }
  });
}

/** Stops runs past their timeout. The killer's timers were not moved, so the database decides. */
async function stopLate({ service, jobs }: TestEngine): Promise<void> {
  const late = await jobs.listJobRunsToKill({ limit: 1_000 });
  await Promise.all(
    late.map(async (run) => {
      const process = service.findJobProcess(run);
      if (!process) return;
      process.stop({ kind: 'timedOut' });
      // The stop was requested already. This waits for the handler, and abandons it after the grace period.
      await service.tryToKillProcess(process);
      await process.recorded.promise;
    }),
  );
}
