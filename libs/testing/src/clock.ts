import { BildadConfigError, toMilliseconds, type Duration } from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { bySchema, TABLES_OF_JOBS, type TestEngine } from './engines.js';

/** Leases: a node goes on renewing them. */
const LEASES = ['expires_at', 'claim_expires_at'];
/** As the store has it: no time, but the mark by which a job is known that waits for its key (`onConflict: 'keepLatest'`). */
export const WAITS_FOR_KEY = '9999-12-31T23:59:59.999Z';

/**
 * The time that jobs see. It passes by moving what the database knows of jobs into the past: when they are due, their
 * backoffs, delays, `startBefore`, timeouts and keys, and their history. Clocks go on as they are: `new Date()`, the
 * database's, and those of leases and heartbeats.
 */
export class TestClock {
  private aheadMs = 0;

  constructor(private readonly engines: () => readonly TestEngine[]) {}

  /** Real time, and what was advanced. */
  now(): Date {
    return new Date(Date.now() + this.aheadMs);
  }

  /**
   * Lets time pass for all jobs there are. Who runs longer than its timeout by now is told to stop, and has ended, or was
   * given up, when this resolves. What is due is run by who runs it otherwise: `drain()` in the mode `manual`.
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

  /** Lets time pass until then. @throws BildadConfigError where `now()` is later */
  async set(to: Date): Promise<void> {
    const ms = to instanceof Date ? to.getTime() - this.now().getTime() : NaN;
    if (!(ms >= 0))
      throw new BildadConfigError('to', 'must be a Date that is not before clock.now()', {
        got: to,
        where: 'clock.set',
      });
    await this.advance(ms);
  }

  /** @internal What a rollback takes back. */
  get mark(): number {
    return this.aheadMs;
  }

  /** @internal */
  reset(mark: number): void {
    this.aheadMs = mark;
  }
}

/** All times of a table in one statement: none is seen moved beside one that is not. */
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

/** What the killer's own timers know of is not moved: the database says who is late. */
async function stopLate({ service, jobs }: TestEngine): Promise<void> {
  const late = await jobs.listJobRunsToKill({ limit: 1_000 });
  await Promise.all(
    late.map(async (run) => {
      const process = service.findJobProcess(run);
      if (!process) return;
      process.stop({ kind: 'timedOut' });
      // Told why already; this waits for it, and gives it up after the grace period.
      await service.tryToKillProcess(process);
      await process.recorded.promise;
    }),
  );
}
