import { writeSync } from 'node:fs';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import type { NodeIdentity } from './node.sql.js';
import { loadPg, openHeartbeatConnection } from '../database/connection/dedicated-connection.js';
import type { TransferableOptions } from '../database/connection/dedicated-connection.js';
import type { Tables } from '../database/tables.js';
import { databaseCode } from '../database/database-error.js';
import { HeartbeatMemory, monotonicMs } from './heartbeat-memory.js';
import { NodeHeartbeat, type HeartbeatReport } from './node-heartbeat.js';

// The entry point of the heartbeat thread. It sends heartbeats while the main thread's event loop is blocked, and watches it.

export interface ThreadData {
  tables: Tables;
  buffer: SharedArrayBuffer;
  connection: TransferableOptions;
  maxBlockMs: number | false;
}

/** Messages to the thread. */
export type ThreadCommand =
  | { command: 'join'; node: NodeIdentity }
  | { command: 'fence'; id: string }
  | { command: 'leave' }
  | { command: 'password'; password: string | undefined };

/** Messages from the thread: the heartbeat's reports, with errors that can be cloned, and a request for the password. */
export type ThreadReport =
  | Exclude<HeartbeatReport, { kind: 'failed' }>
  | { kind: 'failed'; name: string; code: string | undefined }
  | { kind: 'password' };

const CHECK_MS = 250;
/** Shorter blocks count as event loop lag. */
const BLOCKED_FROM_MS = 1_000;

/**
 * Watches the main thread's event loop. Time in which this thread could not run either, because the whole process was
 * frozen, does not count.
 */
class Watchdog {
  private aliveAt: number;
  private checkedAt = monotonicMs();
  private stuckMs = 0;
  private readonly timer: NodeJS.Timeout;

  /** @param limitMs after which the process is killed; false for never */
  constructor(
    private readonly memory: HeartbeatMemory,
    private readonly limitMs: number | false,
  ) {
    this.aliveAt = memory.aliveAt;
    this.timer = setInterval(() => this.check(), CHECK_MS);
    this.timer.unref();
  }

  /** Null while the event loop turns. */
  get blockedMs(): number | null {
    const fromMs = Math.min(BLOCKED_FROM_MS, this.memory.leaseMs / 5);
    return this.stuckMs >= fromMs ? Math.round(this.stuckMs) : null;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private check(): void {
    const now = monotonicMs();
    const passed = Math.min(now - this.checkedAt, 2 * CHECK_MS);
    this.checkedAt = now;
    const { aliveAt } = this.memory;
    this.stuckMs = aliveAt === this.aliveAt ? this.stuckMs + passed : 0;
    this.aliveAt = aliveAt;
    if (this.limitMs === false || this.stuckMs < this.limitMs || this.memory.isDebugged) return;
    try {
      // Not process.stderr: the blocked main thread writes that.
      writeSync(
        2,
        `nestjs-bildad: the event loop was blocked for ${Math.round(this.stuckMs)} ms ` +
          `(limit: maxEventLoopBlock, ${this.limitMs} ms). Process ${process.pid} is killed; ` +
          `its jobs run on other nodes\n`,
      );
    } catch {
      // Stderr is closed.
    }
    process.kill(process.pid, 'SIGKILL');
  }
}

// Loaded while the thread starts: with a short lease the first heartbeat cannot wait for it. A failure shows there.
loadPg().catch(() => undefined);

const port = parentPort as MessagePort;
const { tables, buffer, connection, maxBlockMs } = workerData as ThreadData;
const memory = new HeartbeatMemory(buffer);
const watchdog = new Watchdog(memory, maxBlockMs);
const post = (report: ThreadReport) => port.postMessage(report);

/** Connection attempts that wait for the main thread to send the password. */
let passwordWaiters: ((password: string | undefined) => void)[] = [];

function requestPassword(timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const take = (password: string | undefined) => {
      clearTimeout(timeout);
      resolve(password);
    };
    const timeout = setTimeout(() => {
      // The next attempt asks again: this request may never be answered.
      passwordWaiters = passwordWaiters.filter((waiter) => waiter !== take);
      reject(new Error(`the main thread sent no password within ${timeoutMs} ms`));
    }, timeoutMs);
    passwordWaiters.push(take);
    if (passwordWaiters.length === 1) post({ kind: 'password' });
  });
}

const connect = async (timeoutMs: number) => {
  const { options, needsPassword } = connection;
  return openHeartbeatConnection(
    needsPassword ? { ...options, password: await requestPassword(timeoutMs) } : options,
    timeoutMs,
  );
};
const postReport = (report: HeartbeatReport) => {
  if (report.kind !== 'failed') return post(report);
  const { error } = report;
  const name = error instanceof Error ? error.name : 'Error';
  post({ kind: 'failed', name, code: databaseCode(error) });
};
const heartbeat = new NodeHeartbeat(tables, memory, connect, postReport, () => watchdog.blockedMs);

port.on('message', (message: ThreadCommand) => {
  if (message.command === 'join') heartbeat.join(message.node);
  else if (message.command === 'fence') heartbeat.fence(message.id);
  else if (message.command === 'password') {
    for (const take of passwordWaiters.splice(0)) take(message.password);
  } else {
    void heartbeat.leave().then(() => {
      watchdog.stop();
      port.close();
    });
  }
});
