import { Worker } from 'node:worker_threads';
import type { Store } from '../database/store.js';
import type { NodeIdentity } from './node.sql.js';
import {
  currentPassword,
  transferableOptions,
  heartbeatConnector,
} from '../database/connection/dedicated-connection.js';
import { runAfter, waitAtMost } from '../concurrency/timers.js';
import type { HeartbeatMemory } from './heartbeat-memory.js';
import { NodeHeartbeat, type HeartbeatReport } from './node-heartbeat.js';
import type { ThreadData, ThreadCommand, ThreadReport } from './heartbeat-thread.js';

/** The node heartbeat as the main thread sees it. It runs in its own thread where that is possible. */
export interface HeartbeatHost {
  join(node: NodeIdentity): void;
  fence(id: string): void;
  /** Ends the incarnation and the heartbeat, within the time. Never rejects. */
  leave(withinMs: number): Promise<void>;
}

interface HeartbeatParts {
  store: Store;
  memory: HeartbeatMemory;
  maxBlockMs: number | false;
  report: (report: HeartbeatReport) => void;
  /** Called once, when the heartbeat runs on the main thread: a blocked event loop then looks like a dead node. */
  onDegraded: (cause: unknown) => void;
}

/** @returns null if the DataSource has no pool whose settings can open a connection */
export function startHeartbeat(parts: HeartbeatParts): HeartbeatHost | null {
  const { dataSource } = parts.store;
  if (!heartbeatConnector(dataSource)) return null;
  const connection = transferableOptions(dataSource);
  if (!connection) {
    parts.onDegraded(new Error('the connection options of the DataSource cannot be cloned'));
    return new MainThreadHeartbeat(parts);
  }
  try {
    return new ThreadHeartbeat(parts, connection);
  } catch (error) {
    // Threads are forbidden.
    parts.onDegraded(error);
    return new MainThreadHeartbeat(parts);
  }
}

class MainThreadHeartbeat implements HeartbeatHost {
  private readonly heartbeat: NodeHeartbeat;

  constructor({ store, memory, report }: HeartbeatParts) {
    const connect = heartbeatConnector(store.dataSource)!;
    this.heartbeat = new NodeHeartbeat(store.tables, memory, connect, report, () => null);
  }

  join(node: NodeIdentity): void {
    this.heartbeat.join(node);
  }

  fence(id: string): void {
    this.heartbeat.fence(id);
  }

  leave(withinMs: number): Promise<void> {
    return waitAtMost(withinMs, this.heartbeat.leave());
  }
}

class ThreadHeartbeat implements HeartbeatHost {
  private readonly worker: Worker;
  /** Takes over when the thread has failed. */
  private fallback: HeartbeatHost | undefined;
  private node: NodeIdentity | undefined;
  private leaving = false;

  constructor(
    private readonly parts: HeartbeatParts,
    connection: ThreadData['connection'],
  ) {
    const { store, memory, maxBlockMs } = parts;
    const workerData: ThreadData = {
      tables: store.tables,
      buffer: memory.buffer,
      connection,
      maxBlockMs,
    };
    this.worker = new Worker(new URL('./heartbeat-thread.js', import.meta.url), {
      workerData,
      // Inherits neither the debugger's port nor the host app's loaders.
      execArgv: [],
      name: 'nestjs-bildad heartbeat',
    });
    // The thread must not keep the process alive.
    this.worker.unref();
    this.worker.on('message', (report: ThreadReport) => this.receive(report));
    this.worker.on('error', (error) => this.fallBack(error));
    this.worker.on('exit', () => this.fallBack(new Error('the heartbeat thread has exited')));
  }

  join(node: NodeIdentity): void {
    this.node = node;
    if (this.fallback) this.fallback.join(node);
    else this.send({ command: 'join', node });
  }

  fence(id: string): void {
    if (this.fallback) this.fallback.fence(id);
    else this.send({ command: 'fence', id });
  }

  async leave(withinMs: number): Promise<void> {
    if (this.fallback) return this.fallback.leave(withinMs);
    this.leaving = true;
    const exited = new Promise<void>((resolve) => {
      this.worker.once('exit', () => resolve());
    });
    // Keeps the process alive until the node's row is written.
    this.worker.ref();
    this.send({ command: 'leave' });
    const cancel = runAfter(withinMs, () => void this.worker.terminate());
    await exited;
    cancel();
  }

  private send(command: ThreadCommand): void {
    this.worker.postMessage(command, []);
  }

  private receive(report: ThreadReport): void {
    if (report.kind === 'password') void this.sendPassword();
    else if (report.kind === 'failed')
      this.parts.report({ kind: 'failed', error: new HeartbeatThreadError(report) });
    else this.parts.report(report);
  }

  private async sendPassword(): Promise<void> {
    const { dataSource } = this.parts.store;
    const password = await currentPassword(dataSource).catch(() => undefined);
    this.send({ command: 'password', password });
  }

  private fallBack(cause: unknown): void {
    if (this.fallback || this.leaving) return;
    this.parts.onDegraded(cause);
    this.fallback = new MainThreadHeartbeat(this.parts);
    if (this.node) this.fallback.join(this.node);
  }
}

/** An error of the thread, by class and code: its message may quote secrets. */
class HeartbeatThreadError extends Error {
  readonly code: string | undefined;

  constructor({ name, code }: { name: string; code: string | undefined }) {
    super(code ?? name);
    this.name = name;
    this.code = code;
  }
}
