import { randomUUID } from 'node:crypto';
import { runAfter, runEvery, waitAtMost } from '../concurrency/timers.js';
import { asConnectionLost } from '../database/connection/connection-errors.js';
import { destroyConnection, type PgClient } from '../database/connection/driver.js';
import type { EngineContext } from '../database/engine-context.js';
import { listen, listeningClient, notifyAll, ping } from './notify.sql.js';

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 15_000;
/** This finds a connection that is dead without an error. */
const PING_EVERY_MS = 30_000;
const PING_MS = 5_000;
/** What closing the connection may take. */
const END_MS = 1_000;
/** A notification takes a millisecond; a server that is this late is as good as one that sends none. */
const PROBE_MS = 5_000;

interface Receiver {
  /** It listens from now on; what was sent before was not received. */
  connected: () => void;
  receive: (payload: string) => void;
}

/** Receives notifications on a dedicated connection, which is made again whenever it is lost. */
export class ListeningConnection {
  private client: PgClient | undefined;
  private opening: PgClient | undefined;
  private connecting: Promise<void> | undefined;
  private cancelRetry: (() => void) | undefined;
  private stopPinging: (() => void) | undefined;
  private checking: Promise<void> | undefined;
  private failures = 0;
  private isStarted = false;
  private isStopped = false;

  constructor(
    private readonly engine: EngineContext,
    private readonly receiver: Receiver,
    private readonly probe = new ListenProbe(engine),
  ) {}

  /** Idempotent. */
  start(): void {
    if (this.isStarted || this.isStopped) return;
    this.isStarted = true;
    this.stopPinging = runEvery(PING_EVERY_MS, () => void this.ping());
    this.connect();
  }

  /** Idempotent; safe if never started. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.stopPinging?.();
    this.cancelRetry?.();
    if (this.opening) destroyConnection(this.opening);
    this.probe.stop();
    await this.connecting;
    await this.checking;
    const client = this.client;
    this.client = undefined;
    if (!client) return;
    await waitAtMost(END_MS, client.end());
    destroyConnection(client);
  }

  private connect(): void {
    this.connecting = this.open().finally(() => {
      this.connecting = undefined;
    });
  }

  /** Never rejects. */
  private async open(): Promise<void> {
    const { dataSource, db, tables } = this.engine.store;
    let client: PgClient | null = null;
    try {
      client = listeningClient(dataSource, db.queryTimeoutMs);
      if (!client) return;
      const opened = client;
      this.opening = opened;
      // Without a listener an 'error' would end the process.
      opened.on('error', (error) => this.reconnect(opened, error));
      opened.on('end', () => this.reconnect(opened));
      opened.on('notification', ({ payload }) => {
        if (payload !== undefined && !this.probe.receive(payload)) this.receiver.receive(payload);
      });
      await opened.connect();
      await listen(opened, tables);
      this.client = opened;
      this.failures = 0;
      this.receiver.connected();
      this.check(opened);
    } catch (error) {
      // Reported once: it is tried until it works.
      if (this.failures === 0) this.report(error);
      if (client) destroyConnection(client);
      this.retry();
    } finally {
      this.opening = undefined;
    }
  }

  private async ping(): Promise<void> {
    const client = this.client;
    if (!client) return;
    let answered = false;
    const pinging = ping(client).then(() => {
      answered = true;
    });
    await waitAtMost(PING_MS, pinging);
    if (answered) this.check(client);
    else this.reconnect(client, new Error(`no answer to a ping within ${PING_MS} ms`));
  }

  /** In the background; never rejects. */
  private check(client: PgClient): void {
    if (this.isStopped || this.client !== client) return;
    this.checking ??= this.probe
      .check(client)
      .then(
        () => undefined,
        (error: unknown) => {
          if (this.client === client) this.report(error);
        },
      )
      .finally(() => {
        this.checking = undefined;
      });
  }

  private reconnect(client: PgClient, error?: unknown): void {
    if (this.client !== client) return;
    this.client = undefined;
    destroyConnection(client);
    if (error !== undefined) this.report(error);
    this.retry();
  }

  private retry(): void {
    if (this.isStopped) return;
    const maxMs = Math.min(FIRST_RETRY_MS * 2 ** this.failures++, MAX_RETRY_MS);
    this.cancelRetry = runAfter(maxMs * (0.5 + Math.random() / 2), () => this.connect());
  }

  private report(error: unknown): void {
    if (!this.isStopped)
      this.engine.events.emit('engine.error', {
        doing: 'listening for notifications of other nodes',
        error: asConnectionLost('LISTEN', error),
      });
  }
}

/**
 * Checks that notifications reach the listening connection. A LISTEN without an error proves nothing: PgBouncer in
 * transaction mode sends it to any server session, and `UNLISTEN *` is silent. So the probe is a notification to
 * ourselves. It takes another connection: on the listening one PgBouncer may use the very session that listens.
 */
export class ListenProbe {
  private waiting: { payload: string; received: (isReceived: boolean) => void } | undefined;
  private isDeaf = false;
  private isStopped = false;

  constructor(
    private readonly engine: EngineContext,
    private readonly withinMs = PROBE_MS,
  ) {}

  /** @returns whether the payload is the probe that is under way */
  receive(payload: string): boolean {
    if (payload !== this.waiting?.payload) return false;
    this.waiting.received(true);
    return true;
  }

  /** Emits `engine.listening` when the result changes; sends LISTEN again if that may help. @returns whether it hears */
  async check(client: PgClient): Promise<boolean> {
    let hears = await this.send();
    if (!hears && !this.isStopped) {
      await listen(client, this.engine.store.tables);
      hears = await this.send();
    }
    if (this.isStopped || this.isDeaf === !hears) return hears;
    this.isDeaf = !hears;
    this.engine.events.emit('engine.listening', { hears });
    return hears;
  }

  /** Ends a check that waits. */
  stop(): void {
    this.isStopped = true;
    this.waiting?.received(false);
  }

  private async send(): Promise<boolean> {
    const { db, tables } = this.engine.store;
    const payload = JSON.stringify({ topic: 'probe', from: randomUUID() });
    const received = new Promise<boolean>((resolve) => {
      this.waiting = { payload, received: resolve };
    });
    await notifyAll(db, tables, [payload]);
    const cancel = runAfter(this.isStopped ? 0 : this.withinMs, () =>
      this.waiting?.received(false),
    );
    try {
      return await received;
    } finally {
      cancel();
      this.waiting = undefined;
    }
  }
}
