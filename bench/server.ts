/** The one PostgreSQL server of a run, and the databases that the contenders get on it. */
import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';
import { startPostgres, type PostgresServer } from 'nestjs-bildad/testing';

/** `durable`: fsync, synchronous_commit and full_page_writes are on. */
const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '16GB',
  // Before each run instead, so that none falls into what is timed.
  checkpoint_timeout: '1d',
  max_connections: '200',
};

export class Server {
  private made = 0;

  private constructor(
    private readonly server: PostgresServer,
    private readonly admin: pg.Client,
    private readonly postmaster: number,
  ) {}

  static async start(): Promise<Server> {
    const server = await startPostgres({ durable: true, settings: SETTINGS });
    const admin = new pg.Client(server.url);
    await admin.connect();
    const { rows } = await admin.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const postmaster = await parentOf(rows[0]!.pid);
    return new Server(server, admin, postmaster);
  }

  /**
   * An empty database, or a copy of one without connections. `in bulk` copies its files and ends with a
   * checkpoint, which suits large ones; otherwise the copy goes through the WAL, and what is done with it does not
   * begin with a full image of each page.
   */
  async create(
    template?: string,
    copy: 'through the WAL' | 'in bulk' = 'through the WAL',
  ): Promise<{ name: string; url: string }> {
    const name = `bench_${++this.made}`;
    await this.admin.query('CHECKPOINT');
    await this.admin.query(
      `CREATE DATABASE ${name} TEMPLATE ${template ?? 'template1'} STRATEGY ${copy === 'in bulk' ? 'file_copy' : 'wal_log'}`,
    );
    const url = new URL(this.server.url);
    url.pathname = `/${name}`;
    return { name, url: url.href };
  }

  /** Connections of agents that were stopped may linger. */
  async drop(name: string): Promise<void> {
    await this.admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  }

  /** Statements on a database, each outside a transaction. */
  async run(url: string, ...statements: string[]): Promise<void> {
    const client = new pg.Client(url);
    await client.connect();
    try {
      for (const statement of statements) await client.query(statement);
    } finally {
      await client.end();
    }
  }

  async walBytes(): Promise<number> {
    const { rows } = await this.admin.query<{ bytes: string }>(
      `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes`,
    );
    return Number(rows[0]!.bytes);
  }

  /** User and system time of all its processes, including ended ones; NaN without /proc. */
  async cpuMs(): Promise<number> {
    if (!Number.isFinite(this.postmaster)) return Number.NaN;
    const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const ticks = await Promise.all(all.map((pid) => this.ticksOf(Number(pid))));
    return ticks.reduce((sum, each) => sum + each, 0) * MS_PER_TICK;
  }

  private async ticksOf(pid: number): Promise<number> {
    const stat = await statOf(pid);
    if (pid === this.postmaster) return stat.user + stat.system + stat.ofDeadChildren;
    return stat.parent === this.postmaster ? stat.user + stat.system : 0;
  }

  async stop(): Promise<void> {
    await this.admin.end().catch(() => undefined);
    await this.server.stop();
  }
}

/** USER_HZ, which is 100 wherever Linux runs. */
const MS_PER_TICK = 10;

const parentOf = async (pid: number) => (await statOf(pid)).parent;

async function statOf(pid: number) {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // After the name, which may hold anything: fields 3 and on.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const field = (number: number) => fields[number - 3] ?? Number.NaN;
  // Of a process that has just ended nothing is known, and nothing is its parent.
  return {
    parent: field(4),
    user: field(14),
    system: field(15),
    ofDeadChildren: field(16) + field(17),
  };
}
