import { CoalescedTask } from '../concurrency/coalesced-task.js';
import { waitAtMost } from '../concurrency/timers.js';
import type { EngineContext } from '../database/engine-context.js';
import type { PiggybackStatement } from '../database/connection/engine-pool.js';
import { notifyAll, notifyStatement } from './notify.sql.js';

/** PostgreSQL accepts less than 8,000 bytes per payload. */
const MAX_PAYLOAD_BYTES = 7_900;
/** Payloads per statement. */
const MAX_PAYLOADS = 20;
/** Dropped items are reported at most this often. */
const REPORT_DROPPED_MS = 60_000;
/** Limit for the last statements at close. */
const CLOSE_MS = 2_000;

export interface SendingOptions {
  /** Reported with `engine.error`. Default: failures are not reported; use it for items that are sent again anyway. */
  doing?: string;
  /** Maximum of pending items; more are dropped and reported. Default: no limit. */
  maxPending?: number;
  /** Milliseconds between two statements, because all commits with a NOTIFY share one lock of the server. Default 0. */
  minIntervalMs?: number;
}

/**
 * Sends items to other nodes, at most once each. Items that arrive while a NOTIFY is in flight share the next one. Equal
 * pending strings are sent once.
 */
export class NotificationSender {
  private readonly pending = new Set<unknown>();
  private readonly flush = new CoalescedTask(
    () => this.sendBatch(),
    (error) => this.report(error),
  );
  private sentAt = -Infinity;
  private dropped = 0;
  private reportedDroppedAt = -Infinity;
  private isClosed = false;

  /** @param head the fields of every payload beside the list of items, `list` the name of that list */
  constructor(
    private readonly engine: EngineContext,
    private readonly head: object,
    private readonly list: string,
    private readonly options: SendingOptions,
  ) {}

  /** @param item sent as JSON */
  send(item: unknown): void {
    if (this.isClosed) return;
    if (this.pending.size >= (this.options.maxPending ?? Infinity)) {
      this.dropped++;
      return;
    }
    this.pending.add(item);
    this.flush.request(this.waitMs);
  }

  /**
   * The NOTIFY of one item, to be sent right behind another statement. Null if one is in flight or the last one was less
   * than `quietMs` ago: then `send` is cheaper, because it sends many items with one statement.
   */
  piggyback(item: unknown, quietMs: number): PiggybackStatement | null {
    const now = performance.now();
    if (this.flush.isRunning || now - this.sentAt <= quietMs) return null;
    this.sentAt = now;
    const { payloads } = pack(this.head, this.list, [item]);
    return {
      ...notifyStatement(this.engine.store.tables, payloads),
      settled: (error) => {
        if (error !== undefined) this.report(error);
      },
    };
  }

  /** Resolves when no NOTIFY is in flight. */
  idle(): Promise<void> {
    return this.flush.idle();
  }

  /** Sends the pending items if the database answers in time. Ignores later items. */
  async close(): Promise<void> {
    this.isClosed = true;
    if (this.pending.size > 0) this.flush.request();
    await waitAtMost(CLOSE_MS, this.flush.idle());
    this.pending.clear();
  }

  private async sendBatch(): Promise<void> {
    const { db, tables } = this.engine.store;
    const { payloads, packed, dropped } = pack(this.head, this.list, this.pending);
    for (const item of packed) this.pending.delete(item);
    this.dropped += dropped;
    try {
      if (payloads.length > 0) await notifyAll(db, tables, payloads);
    } catch (error) {
      this.report(error);
    }
    this.sentAt = performance.now();
    this.reportDropped();
    if (this.pending.size > 0) this.flush.request(this.waitMs);
  }

  private get waitMs(): number {
    const { minIntervalMs = 0 } = this.options;
    return this.isClosed ? 0 : Math.max(this.sentAt + minIntervalMs - performance.now(), 0);
  }

  private reportDropped(): void {
    if (this.dropped === 0 || this.sentAt < this.reportedDroppedAt + REPORT_DROPPED_MS) return;
    this.reportedDroppedAt = this.sentAt;
    this.report(new Error(`${this.dropped} notifications were dropped: too many, or too long`));
    this.dropped = 0;
  }

  private report(error: unknown): void {
    const { doing } = this.options;
    if (doing !== undefined) this.engine.events.emit('engine.error', { doing, error });
  }
}

/** @returns payloads, the items to remove from the queue, and how many of these are dropped because no payload can hold them */
function pack(head: object, list: string, items: Iterable<unknown>) {
  const begin = `${JSON.stringify(head).slice(0, -1)},"${list}":[`;
  const room = MAX_PAYLOAD_BYTES - Buffer.byteLength(begin) - 2;
  const payloads: string[] = [];
  const packed: unknown[] = [];
  let dropped = 0;
  let part = '';
  const endPayload = () => {
    if (part) payloads.push(`${begin}${part}]}`);
    part = '';
  };
  for (const item of items) {
    const json = toJson(item);
    const size = Buffer.byteLength(json);
    if (part && size <= room && Buffer.byteLength(part) + 1 + size > room) {
      endPayload();
      if (payloads.length === MAX_PAYLOADS) break;
    }
    packed.push(item);
    if (json === '' || size > room) dropped++;
    else part = part ? `${part},${json}` : json;
  }
  endPayload();
  return { payloads, packed, dropped };
}

/** @returns an empty string if the item has no JSON form */
function toJson(item: unknown): string {
  try {
    return JSON.stringify(item) ?? '';
  } catch {
    return '';
  }
}
