/* oxlint-disable no-underscore-dangle -- fields of pg and pg-pool */
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { isAnswer } from './connection-errors.js';
import { openConnection, type DedicatedConnection } from './dedicated-connection.js';
import { destroyConnection, poolsOf, type HostPool, type PgClient, type PgPool } from './driver.js';

/** Connections of a pool that are in use. Engines on one DataSource share it. */
const usedByPool = new WeakMap<PgPool, Set<PgClient>>();

/**
 * The connections of the host's DataSource. Nothing times out on connections that died silently: their
 * statements wait for ever, `DataSource.destroy` waits for the statements, and the process for both.
 */
export class HostPools {
  constructor(private readonly dataSource: DataSource) {}

  /** Watches the pools of an initialized DataSource. Idempotent. */
  watch(): void {
    for (const pool of poolsOf(this.dataSource)) if (!usedByPool.has(pool)) watchPool(pool);
  }

  /**
   * Destroys dead connections. A connection that runs a statement is destroyed only if its server
   * does not answer on a new connection, or does not run that statement. Never rejects.
   */
  async destroyDead(ms: number): Promise<void> {
    await Promise.allSettled(poolsOf(this.dataSource).map((pool) => destroyDeadOf(pool, ms)));
  }
}

function watchPool(pool: PgPool): void {
  const used = new Set<PgClient>();
  const watched = new WeakSet<PgClient>();
  usedByPool.set(pool, used);
  pool.on('acquire', (client) => {
    used.add(client);
    if (watched.has(client)) return;
    watched.add(client);
    // A connection that its user has not yet taken has no listener: its 'error' would end the process.
    client.on('error', () => undefined);
  });
  pool.on('release', (_error, client) => used.delete(client));
  pool.on('remove', (client) => used.delete(client));
}

async function destroyDeadOf(pool: HostPool, ms: number): Promise<void> {
  // The pool would make a new connection for more requests than it has idle ones.
  const idle = Array.from({ length: Math.max(pool.idleCount - pool.waitingCount, 0) }, () =>
    destroyIdleIfDead(pool, ms),
  );
  const all = [...(pool._clients ?? [])];
  const opening = all.filter((client) => client.connection && !client.processID);
  const busy = all.map((client) => ({ client, statement: statementOf(client) }));
  const late = opening.length > 0 ? pause(ms) : undefined;
  const running = await runningStatements(pool, ms);
  // Answers that have arrived by now are read first.
  await nextTurn();
  if (!running) {
    usedByPool.get(pool)?.forEach(destroyConnection);
    pool._clients?.forEach(destroyConnection);
  } else
    for (const { client, statement } of busy)
      if (statement && statementOf(client) === statement && !running.has(client.processID!))
        destroyConnection(client);
  await Promise.allSettled(idle);
  await late;
  for (const client of opening) if (!client.processID) destroyConnection(client);
}

const statementOf = (client: PgClient): unknown =>
  '_activeQuery' in client ? client._activeQuery : client.activeQuery;

/**
 * Asks the server on a new connection: others may wait for locks.
 * @returns whether a backend runs a statement; null if the server does not answer
 */
async function runningStatements(
  { Client, options }: HostPool,
  ms: number,
): Promise<{ has(processID: number): boolean } | null> {
  let connection: DedicatedConnection;
  try {
    connection = await openConnection(Client, options, ms, 'probe');
  } catch (error) {
    return isAnswer(error) ? ALL_RUNNING : null;
  }
  try {
    const rows = (await connection.query(RUNNING)) as { pid: number; own: boolean }[];
    const isDirect = rows.some(({ pid, own }) => own && pid === connection.processID);
    // Behind PgBouncer the number of a connection is not that of its backend.
    return isDirect ? new Set(rows.map(({ pid }) => pid)) : ALL_RUNNING;
  } catch {
    return ALL_RUNNING;
  } finally {
    connection.destroy();
  }
}

const ALL_RUNNING = { has: () => true };
/** Another role's statements are hidden: they count as running. */
const RUNNING = `SELECT pid, pid = pg_backend_pid() AS own FROM pg_stat_activity
  WHERE datname = current_database() AND coalesce(state, 'active') = 'active'`;

/** Checks one idle connection; each call checks another one. */
async function destroyIdleIfDead(pool: PgPool, ms: number): Promise<void> {
  const client = await pool.connect();
  const deadline = new AbortController();
  const isDead = await Promise.race([
    client.query('SELECT 1').then(
      () => false,
      () => true,
    ),
    pause(ms, true, { signal: deadline.signal }).catch(() => true),
  ]);
  deadline.abort();
  if (isDead) destroyConnection(client);
  client.release(isDead);
}
