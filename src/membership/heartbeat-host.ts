import { Worker } from 'node:worker_threads';
import type { Store } from '../database/store.js';
import type { NodeFacts } from './node.sql.js';
import {
  currentPassword,
  transferableOptions,
  heartbeatConnector,
} from '../database/connection/dedicated-connection.js';
import { runAfter, waitAtMost } from '../concurrency/timers.js';
import type { PulseMemory } from './memory-sample.js';
import { Pulse, type PulseNews } from './node-heartbeat.js';
import type { ThreadData, ThreadNews, ThreadOrder } from './heartbeat-thread.js';

/** A node's side of its pulse, in a thread of its own where that is possible. */
export interface PulseHost {
  join(facts: NodeFacts): void;
  fence(id: string): void;
  /** Ends the incarnation and the pulse, within the time. Never rejects. */
  leave(withinMs: number): Promise<void>;
}

/** Told once, when the pulse beats on the main thread: a blocked event loop looks like death then. */
type Degraded = (why: unknown) => void;

/** Null where the DataSource has no pool that a connection could be made like. */
export function startPulse(
  store: Store,
  memory: PulseMemory,
  maxBlockMs: number | false,
  tell: (news: PulseNews) => void,
  degraded: Degraded,
): PulseHost | null {
  if (!heartbeatConnector(store.dataSource)) return null;
  const connection = transferableOptions(store.dataSource);
  if (!connection) {
    degraded(new Error('the DataSource connects in a way of its own'));
    return new MainThreadPulse(store, memory, tell);
  }
  const data: ThreadData = {
    tables: store.tables,
    buffer: memory.buffer,
    connection,
    maxBlockMs,
  };
  try {
    return new ThreadPulse(store, memory, data, tell, degraded);
  } catch (error) {
    // Where threads are forbidden.
    degraded(error);
    return new MainThreadPulse(store, memory, tell);
  }
}

class MainThreadPulse implements PulseHost {
  private readonly pulse: Pulse;

  constructor(store: Store, memory: PulseMemory, tell: (news: PulseNews) => void) {
    const connect = heartbeatConnector(store.dataSource)!;
    this.pulse = new Pulse(store.tables, memory, connect, tell, () => null);
  }

  join(facts: NodeFacts): void {
    this.pulse.join(facts);
  }

  fence(id: string): void {
    this.pulse.fence(id);
  }

  leave(withinMs: number): Promise<void> {
    return waitAtMost(withinMs, this.pulse.leave());
  }
}

class ThreadPulse implements PulseHost {
  private readonly worker: Worker;
  private instead: PulseHost | undefined;
  private facts: NodeFacts | undefined;
  private leaving = false;

  constructor(
    private readonly store: Store,
    private readonly memory: PulseMemory,
    data: ThreadData,
    private readonly tell: (news: PulseNews) => void,
    private readonly degraded: Degraded,
  ) {
    this.worker = new Worker(new URL('./heartbeat-thread.js', import.meta.url), {
      workerData: data,
      // Not the debugger's port, nor the host's loaders.
      execArgv: [],
      name: 'nestjs-bildad pulse',
    });
    // Neither the thread nor what it says keeps the process alive.
    this.worker.unref();
    this.worker.on('message', (news: ThreadNews) => this.heard(news));
    this.worker.on('error', (error) => this.broken(error));
    this.worker.on('exit', () => this.broken(new Error('the thread has ended')));
  }

  join(facts: NodeFacts): void {
    this.facts = facts;
    if (this.instead) this.instead.join(facts);
    else this.order({ order: 'join', facts });
  }

  fence(id: string): void {
    if (this.instead) this.instead.fence(id);
    else this.order({ order: 'fence', id });
  }

  async leave(withinMs: number): Promise<void> {
    if (this.instead) return this.instead.leave(withinMs);
    this.leaving = true;
    const exited = new Promise<void>((resolve) => {
      this.worker.once('exit', () => resolve());
    });
    // Without this the process might end before the row has.
    this.worker.ref();
    this.order({ order: 'leave' });
    const cancel = runAfter(withinMs, () => void this.worker.terminate());
    await exited;
    cancel();
  }

  private order(order: ThreadOrder): void {
    this.worker.postMessage(order, []);
  }

  private heard(news: ThreadNews): void {
    if (news.kind === 'password') void this.sayPassword();
    else if (news.kind === 'failed') this.tell({ kind: 'failed', error: new ThreadError(news) });
    else this.tell(news);
  }

  private async sayPassword(): Promise<void> {
    const password = await currentPassword(this.store.dataSource).catch(() => undefined);
    this.order({ order: 'password', password });
  }

  /** The thread has ended by an error: this one takes its place. */
  private broken(error: unknown): void {
    if (this.instead || this.leaving) return;
    this.degraded(error);
    this.instead = new MainThreadPulse(this.store, this.memory, this.tell);
    if (this.facts) this.instead.join(this.facts);
  }
}

/** An error of the other thread, by its class and code: its message may quote what it should not. */
class ThreadError extends Error {
  readonly code: string | undefined;

  constructor({ name, code }: { name: string; code: string | undefined }) {
    super(code ?? name);
    this.name = name;
    this.code = code;
  }
}
