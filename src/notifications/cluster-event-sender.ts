import { AsyncLocalStorage } from 'node:async_hooks';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import { runAfter, waitAtMost } from '../concurrency/timers.js';
import { channelsOf, notifyAll } from './notify.sql.js';
import { packed } from './payloads.js';

/** Of one statement. */
const MOST_PAYLOADS = 20;
/** Between two statements: each NOTIFY takes a lock that all of a server's commits with one wait for. */
const TELL_EVERY_MS = 100;
/** Events that wait to be told. What comes on top of that is dropped. */
const MOST_WAITING = 2_000;
/** Overflows are told of as often at the most. */
const SAY_DROPPED_MS = 60_000;

/** What the last statements may take. */
const STOP_MS = 2_000;

/** What is told is no part of what set it off. */
const outside = AsyncLocalStorage.snapshot();

/** Tells other nodes of events: at most once, and no more of them than there is room for. */
export class NewsSender {
  private waiting: string[] = [];
  private telling: Promise<void> | undefined;
  private cancel: (() => void) | undefined;
  private toldAt = -Infinity;
  private dropped = 0;
  private saidDroppedAt = -Infinity;
  private over = false;

  /** @param head goes with each payload */
  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly head: object,
  ) {}

  /** @param event as JSON */
  add(event: string): void {
    if (this.waiting.length >= MOST_WAITING) {
      this.dropped++;
      return;
    }
    this.waiting.push(event);
    this.tellLater();
  }

  /** Tells what is left, once; then nothing any more. A database that does not answer is not waited for. */
  async stop(): Promise<void> {
    this.over = true;
    this.cancel?.();
    await waitAtMost(STOP_MS, this.tellLast());
  }

  private async tellLast(): Promise<void> {
    await this.telling;
    if (this.waiting.length > 0) await this.tell();
  }

  private tellLater(): void {
    if (this.telling || this.cancel || this.over) return;
    const ms = Math.max(this.toldAt + TELL_EVERY_MS - performance.now(), 0);
    const work = () => {
      this.cancel = undefined;
      this.telling = this.tell().finally(() => {
        this.telling = undefined;
        if (this.waiting.length > 0) this.tellLater();
      });
    };
    this.cancel = outside(() => runAfter(ms, work, { keepsAlive: false }));
  }

  /** Never rejects: what cannot be told now is not told. */
  private async tell(): Promise<void> {
    const { db, tables } = this.store;
    const { payloads, taken, tooLong } = packed(this.head, 'events', this.waiting, MOST_PAYLOADS);
    this.waiting.splice(0, taken);
    this.dropped += tooLong;
    try {
      if (payloads.length > 0) await notifyAll(db, channelsOf(tables).events, payloads);
    } catch (error) {
      this.waiting = [];
      this.failed(error);
    }
    this.toldAt = performance.now();
    if (this.dropped === 0 || this.toldAt < this.saidDroppedAt + SAY_DROPPED_MS) return;
    this.saidDroppedAt = this.toldAt;
    this.failed(new Error(`${this.dropped} events were dropped: too many, or too long`));
    this.dropped = 0;
  }

  private failed(error: unknown): void {
    const doing = 'telling other nodes of events';
    this.events.emit('engine.error', { doing, error });
  }
}
