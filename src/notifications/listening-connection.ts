import { randomUUID } from 'node:crypto';
import { runAfter, waitAtMost } from '../concurrency/timers.js';
import { WakeablePause } from '../concurrency/wakeable-pause.js';
import { asConnectionLost } from '../database/connection/connection-errors.js';
import { destroyConnection, type PgClient } from '../database/connection/driver.js';
import type { EngineContext } from '../database/engine-context.js';
import { listen, listeningClient, notifyAll, ping } from './notify.sql.js';

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 15_000;
/** This finds a connection that is dead without an error. */
const PING_EVERY_MS = 30_000;
const PING_MS = 5_000;
/** Limit for closing the connection. */
const END_MS = 1_000;
/** A notification takes a millisecond. After this time NOTIFY counts as not working. */
const PROBE_MS = 5_000;

interface Receiver {
  /** Called when it starts to listen. Earlier notifications were not received. */
  connected: () => void;
  receive: (payload: string) => void;
}

/** Receives notifications on a dedicated connection, which is reopened whenever it is lost. */
export class ListeningConnection {
  private client: PgClient | undefined;
  private isListening = false;
  private running: Promise<void> | undefined;
  /** The pause between two attempts to connect or two pings; a lost connection ends it. */
  private readonly pause = new WakeablePause();
  private isStopped = false;

  constructor(
    private readonly engine: EngineContext,
    private readonly receiver: Receiver,
    private readonly probe = new ListenProbe(engine),
  ) {}

  /** Idempotent. */
  start(): void {
    if (!this.isStopped) this.running ??= this.run();
  }

  /** Idempotent; safe if never started. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.probe.stop();
    this.pause.wake();
    const { client } = this;
    if (client && this.isListening) await waitAtMost(END_MS, client.end());
    if (client) destroyConnection(client);
    await this.running;
  }

  /** Never rejects. */
  private async run(): Promise<void> {
    const { dataSource, db } = this.engine.store;
    for (let failures = 0; !this.isStopped; failures++) {
      try {
        this.client = listeningClient(dataSource, db.queryTimeoutMs) ?? undefined;
        if (!this.client) return;
        await this.listenUntilLost(this.client, () => {
          failures = 0;
        });
      } catch (error) {
        // Reported once per outage.
        if (failures === 0) this.report(error);
      }
      this.isListening = false;
      if (this.client) destroyConnection(this.client);
      if (this.isStopped) return;
      this.pause.reset();
      const maxMs = Math.min(FIRST_RETRY_MS * 2 ** failures, MAX_RETRY_MS);
      await this.pause.sleep(maxMs * (0.5 + Math.random() / 2));
    }
  }

  /** Rejects when the connection is lost or cannot be opened. */
  private async listenUntilLost(client: PgClient, onListening: () => void): Promise<void> {
    const lost = new Promise<never>((_resolve, reject) => {
      const onLost = (error: unknown) => {
        reject(error);
        this.pause.wake();
        this.probe.cancel();
      };
      // Without a listener an 'error' would end the process.
      client.on('error', onLost);
      client.on('end', () => onLost(new Error('the connection was closed')));
    });
    client.on('notification', ({ payload }) => {
      if (payload !== undefined && !this.probe.receive(payload)) this.receiver.receive(payload);
    });
    await Promise.race([lost, client.connect()]);
    await Promise.race([lost, listen(client, this.engine.store.tables)]);
    onListening();
    this.isListening = true;
    this.receiver.connected();
    for (;;) {
      this.pause.reset();
      await Promise.race([lost, this.check(client)]);
      await this.pause.sleep(PING_EVERY_MS);
      await Promise.race([lost, pingWithin(client)]);
    }
  }

  /** Reports a probe that cannot be sent, and keeps the connection. */
  private async check(client: PgClient): Promise<void> {
    try {
      await this.probe.check(client);
    } catch (error) {
      if (this.isListening && this.client === client) this.report(error);
    }
  }

  private report(error: unknown): void {
    if (!this.isStopped)
      this.engine.events.emit('engine.error', {
        doing: 'listening for notifications of other nodes',
        error: asConnectionLost('LISTEN', error),
      });
  }
}

async function pingWithin(client: PgClient): Promise<void> {
  let isAnswered = false;
  const pinging = ping(client).then(() => {
    isAnswered = true;
  });
  await waitAtMost(PING_MS, pinging);
  if (!isAnswered) throw new Error(`no answer to a ping within ${PING_MS} ms`);
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

  /** @returns whether the payload is the current probe */
  receive(payload: string): boolean {
    if (payload !== this.waiting?.payload) return false;
    this.waiting.received(true);
    return true;
  }

  /** Repeats LISTEN if the probe fails. Emits `engine.listening` when the result changes. @returns whether NOTIFY works */
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

  /** Ends a pending check, because its connection is lost. */
  cancel(): void {
    this.waiting?.received(false);
  }

  stop(): void {
    this.isStopped = true;
    this.cancel();
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
