import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { cut, type PgClient } from '../database/connection/driver.js';
import { asLost } from '../database/connection/connection-errors.js';
import { channelsOf, listen, listeningClient, probe } from './notify.sql.js';
import { readNotice } from './completion-notice.sql.js';
import type { News } from './cluster-events.js';
import type { Waits } from '../control/job-waiter.js';
import { Hearing } from './listen-probe.js';
import { runAfter, waitAtMost, runEvery } from '../concurrency/timers.js';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
/** A connection that is dead without having said so is noticed by this. */
const PROBE_EVERY_MS = 30_000;
const PROBE_MS = 5_000;
/** What a goodbye may take. */
const END_MS = 1_000;

/** Hears of what other processes enqueue, and of ends that are waited for, on a connection of its own that is made again whenever it is lost. */
export class Listener {
  private client: PgClient | undefined;
  private opening: PgClient | undefined;
  private connecting: Promise<void> | undefined;
  private cancelRetry: (() => void) | undefined;
  private stopProbing: (() => void) | undefined;
  private checking: Promise<void> | undefined;
  private failures = 0;
  private wake: () => void = () => undefined;
  private started = false;
  private over = false;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly waits: Waits,
    private readonly news: News,
    private readonly hearing = new Hearing(store, events),
  ) {
    waits.hearBy(() => this.start());
    news.hearBy(() => this.start());
  }

  /** Idempotent. @param wake looks for work; not given where it is listened for ends alone */
  start(wake?: () => void): void {
    if (wake) this.wake = wake;
    if (this.started || this.over) return;
    this.started = true;
    this.stopProbing = runEvery(PROBE_EVERY_MS, () => void this.probe());
    this.connect();
  }

  /** Idempotent; safe if never started. */
  async stop(): Promise<void> {
    this.over = true;
    this.stopProbing?.();
    this.cancelRetry?.();
    if (this.opening) cut(this.opening);
    this.hearing.close();
    await this.connecting;
    await this.checking;
    const client = this.client;
    this.client = undefined;
    if (!client) return;
    await waitAtMost(END_MS, client.end());
    cut(client);
  }

  private connect(): void {
    this.connecting = this.open().finally(() => {
      this.connecting = undefined;
    });
  }

  /** Never rejects. */
  private async open(): Promise<void> {
    let client: PgClient | null = null;
    try {
      const { dataSource, db } = this.store;
      client = listeningClient(dataSource, db.queryTimeoutMs);
      if (!client) return;
      const opened = client;
      this.opening = opened;
      // Without a listener an 'error' would end the process.
      opened.on('error', (error) => this.lose(opened, error));
      opened.on('end', () => this.lose(opened));
      opened.on('notification', ({ channel, payload }) => {
        const { ends, events } = channelsOf(this.store.tables);
        if (channel === ends) {
          const notice = readNotice(payload);
          if (notice) this.waits.heard(notice);
        } else if (channel === events) this.news.heard(payload);
        else if (!this.hearing.took(payload) && payload !== this.node.id) this.wake();
      });
      await opened.connect();
      await listen(opened, this.store.tables);
      this.client = opened;
      this.failures = 0;
      // What was told meanwhile was told to nobody.
      this.wake();
      this.waits.lookAgain();
      this.news.opened();
      this.check(opened);
    } catch (error) {
      // Once: it is tried until it is there.
      if (this.failures === 0) this.tell(error);
      if (client) cut(client);
      this.retry();
    } finally {
      this.opening = undefined;
    }
  }

  private async probe(): Promise<void> {
    const client = this.client;
    if (!client) return;
    let answered = false;
    const asking = probe(client).then(() => {
      answered = true;
    });
    await waitAtMost(PROBE_MS, asking);
    if (answered) this.check(client);
    else this.lose(client, new Error('no answer to a probe'));
  }

  /** In the background; never rejects. */
  private check(client: PgClient): void {
    if (this.over || this.client !== client) return;
    this.checking ??= this.hearing
      .check(client)
      .then(
        () => undefined,
        (error: unknown) => {
          if (this.client === client) this.tell(error);
        },
      )
      .finally(() => {
        this.checking = undefined;
      });
  }

  private lose(client: PgClient, error?: unknown): void {
    if (this.client !== client) return;
    this.client = undefined;
    cut(client);
    if (error !== undefined) this.tell(error);
    this.retry();
  }

  private retry(): void {
    if (this.over) return;
    const longest = Math.min(FIRST_PAUSE_MS * 2 ** this.failures++, LONGEST_PAUSE_MS);
    this.cancelRetry = runAfter(longest * (0.5 + Math.random() / 2), () => this.connect());
  }

  private tell(error: unknown): void {
    if (!this.over)
      this.events.emit('engine.error', {
        doing: 'listening for jobs of other processes',
        error: asLost('LISTEN', error),
      });
  }
}
