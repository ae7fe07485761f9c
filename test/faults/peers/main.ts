import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { startPostgres, type PostgresServer } from 'nestjs-bildad/testing';
import { installPeers } from '../../../bench/install.js';
import { FaultProxy } from '../proxy.js';

/**
 * The same five faults for Bildad and its peers, each with the defaults of its documentation: two workers,
 * ten jobs of a second, a fault while they run, and 25 seconds to end them all.
 * `npm run lab:peers -- --system pg-boss`. The last line is one JSON object.
 */
const { values } = parseArgs({
  options: {
    system: { type: 'string', multiple: true },
    fault: { type: 'string', multiple: true },
    seconds: { type: 'string' },
  },
});

const SYSTEMS = ['bildad', 'pg-boss', 'graphile-worker', 'bullmq'];
const JOBS = 10;
const JOB_MS = 1_000;
/** More than one worker runs at once. */
const AT_WORK = 6;
const PATIENCE_MS = Number(values.seconds ?? 25) * 1_000;
const CLOSE_MS = 10_000;

const FAULTS = ['kill', 'freeze', 'blackholeEstablished', 'backends', 'crash'] as const;
type Fault = (typeof FAULTS)[number];

interface Result {
  /** Jobs whose handler has ended, of ten there before the fault and ten after it. */
  ended: number;
  /** Until the last of them ended, from the fault. */
  ms: number | null;
  /** Handlers that ran more than once to their end. */
  twice: number;
  /** Workers that ended although nobody told them to. */
  died: number;
  /** The longest that a worker took to close; null: not within ten seconds. */
  closeMs: number | null;
}

const script = (system: string) =>
  system === 'bildad'
    ? fileURLToPath(new URL('./bildad.js', import.meta.url))
    : fileURLToPath(new URL('../../../../bench/peers/dist/peers/faults.js', import.meta.url));

class Peer {
  private readonly ledger: string;
  private readonly folder = mkdtempSync(join(tmpdir(), 'lab-peers-'));

  constructor(
    private readonly system: string,
    private readonly url: string,
  ) {
    this.ledger = join(this.folder, 'ledger.jsonl');
  }

  async start(role: 'work' | 'produce', port?: number): Promise<ChildProcess> {
    const url = new URL(this.url);
    if (port !== undefined) url.port = String(port);
    const child = fork(script(this.system), [this.system, role], {
      env: {
        ...process.env,
        DATABASE_URL: url.href,
        LAB_LEDGER: this.ledger,
      },
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    child.on('error', () => undefined);
    await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code]) =>
        Promise.reject(new Error(`${this.system} ended with ${String(code)}`)),
      ),
    ]);
    return child;
  }

  /** How often each job's handler has said this. */
  said(what: 'start' | 'end'): Map<string, number> {
    const counts = new Map<string, number>();
    for (const line of readFileSync(this.ledger, 'utf8').split('\n')) {
      if (line === '') continue;
      const said = JSON.parse(line) as { what: string; id: string };
      if (said.what === what) counts.set(said.id, (counts.get(said.id) ?? 0) + 1);
    }
    return counts;
  }

  clear(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function scenario(server: PostgresServer, system: string, fault: Fault): Promise<Result> {
  const url = await createDatabase(server, system, fault);
  const peer = new Peer(system, url);
  const proxy = await FaultProxy.start(Number(new URL(url).port));
  const producer = await peer.start('produce');
  const first = await peer.start('work', proxy.port);
  const second = await peer.start('work', proxy.port);
  let number = 0;
  const enqueue = () => {
    for (let n = 0; n < JOBS; n++) producer.send({ id: String(number++), ms: JOB_MS });
  };
  enqueue();
  // Both have jobs in hand then, or one of them has more than it runs at once.
  while (peer.said('start').size < AT_WORK) await wait(20);
  await inflict(fault, server, url, proxy, first);
  const began = performance.now();
  if (fault === 'crash') await wait(500);
  enqueue();
  // After a crash the producer has lost connections as well: what it did not get in is not asked for again.
  let ended = 0;
  while (performance.now() - began < PATIENCE_MS) {
    ended = peer.said('end').size;
    if (ended === 2 * JOBS) break;
    await wait(50);
  }
  const ms = performance.now() - began;
  // What came back twice does so by now.
  await wait(JOB_MS);
  const twice = [...peer.said('end').values()].filter((n) => n > 1).length;
  const alive = [first, second].filter(isAlive);
  const died = 2 - alive.length - (fault === 'kill' ? 1 : 0);
  const closes = await Promise.all(alive.map(close));
  for (const child of [producer, first, second]) child.kill('SIGKILL');
  await proxy.stop();
  peer.clear();
  return {
    ended,
    ms: ended === 2 * JOBS ? Math.round(ms) : null,
    twice,
    died,
    closeMs: closes.includes(null)
      ? null
      : Math.round(Math.max(0, ...closes.map((one) => one ?? 0))),
  };
}

async function inflict(
  fault: Fault,
  server: PostgresServer,
  url: string,
  proxy: FaultProxy,
  worker: ChildProcess,
): Promise<void> {
  if (fault === 'kill') worker.kill('SIGKILL');
  else if (fault === 'freeze') {
    worker.kill('SIGSTOP');
    setTimeout(() => worker.kill('SIGCONT'), 8_000);
  } else if (fault === 'blackholeEstablished') await proxy.inflict(fault);
  else if (fault === 'crash') await server.restart('crash', 1_000);
  else
    await ask(
      url,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    );
}

const isAlive = ({ exitCode, signalCode }: ChildProcess) =>
  exitCode === null && signalCode === null;

async function close(child: ChildProcess): Promise<number | null> {
  const began = performance.now();
  const exited = once(child, 'exit').then(() => performance.now() - began);
  child.kill('SIGTERM');
  return Promise.race([exited, wait(CLOSE_MS, null)]);
}

async function createDatabase(
  server: PostgresServer,
  system: string,
  fault: Fault,
): Promise<string> {
  const name = `${system}_${fault}`.replaceAll('-', '_').toLowerCase();
  await ask(server.url, `CREATE DATABASE ${name}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return url.href;
}

async function ask(url: string, sql: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

async function all(system: string): Promise<Partial<Record<Fault, Result>>> {
  const server = await startPostgres({
    settings: { synchronous_commit: 'on', max_connections: '200' },
  });
  const results: Partial<Record<Fault, Result>> = {};
  try {
    for (const fault of FAULTS) {
      if (values.fault && !values.fault.includes(fault)) continue;
      results[fault] = await scenario(server, system, fault);
      console.log(system, fault, JSON.stringify(results[fault]));
    }
  } finally {
    await server.stop();
  }
  return results;
}

async function main(): Promise<void> {
  const systems = values.system ?? SYSTEMS;
  if (systems.some((system) => system !== 'bildad')) await installPeers();
  const results: Record<string, Partial<Record<Fault, Result>>> = {};
  // Side by side: most of it is waiting.
  await Promise.all(
    systems.map(async (system) => {
      results[system] = await all(system);
    }),
  );
  console.log(JSON.stringify(results));
}

await main();
process.exit();
