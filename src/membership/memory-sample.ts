import { BEATS_PER_LEASE } from './heartbeats-per-lease.js';

/** Milliseconds by a clock that all threads of a process share and nobody sets. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1_000 + nanoseconds / 1e6;
}

/**
 * Until when a beat that the database has answered lets the node be trusted: the lease counts from a later moment by
 * the database's clock, and the margin of one beat is for stopping what runs.
 */
export const trustedUntil = (sentAt: number, leaseMs: number) =>
  sentAt + leaseMs - leaseMs / BEATS_PER_LEASE;

enum Cell {
  Turned,
  TrustedUntil,
  Lease,
  Running,
  Lag,
  Debugged,
  Count,
}

/**
 * What the main thread and the pulse's thread tell one another without a turn of either's event loop. Whole
 * microseconds, milliseconds and counts.
 */
export class PulseMemory {
  private readonly cells: BigInt64Array;

  constructor(
    readonly buffer = new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT * Cell.Count),
  ) {
    this.cells = new BigInt64Array(buffer);
  }

  /** When the main thread's event loop turned last. Another number each time. */
  get turnedAt(): number {
    return this.get(Cell.Turned) / 1_000;
  }
  turned(now: number): void {
    this.set(Cell.Turned, now * 1_000);
  }

  /** Until when the database is sure to hold the node for alive; Infinity before it has ever heard of it. */
  get trustedUntil(): number {
    const until = this.get(Cell.TrustedUntil);
    return until === 0 ? Infinity : until / 1_000;
  }
  /** Answers may come out of turn: none takes trust away. */
  trustUntil(time: number): void {
    if (time * 1_000 > this.get(Cell.TrustedUntil)) this.set(Cell.TrustedUntil, time * 1_000);
  }

  get leaseMs(): number {
    return this.get(Cell.Lease);
  }
  set leaseMs(ms: number) {
    this.set(Cell.Lease, ms);
  }

  get running(): number {
    return this.get(Cell.Running);
  }
  set running(count: number) {
    this.set(Cell.Running, count);
  }

  /** The longest lag since it was taken last, in milliseconds. */
  takeLag(): number {
    return Number(Atomics.exchange(this.cells, Cell.Lag, 0n)) / 1_000;
  }
  lagged(ms: number): void {
    if (ms * 1_000 > this.get(Cell.Lag)) this.set(Cell.Lag, ms * 1_000);
  }

  /** A debugger may hold the main thread at a breakpoint. */
  get debugged(): boolean {
    return this.get(Cell.Debugged) === 1;
  }
  set debugged(is: boolean) {
    this.set(Cell.Debugged, is ? 1 : 0);
  }

  private get(cell: Cell): number {
    return Number(Atomics.load(this.cells, cell));
  }
  private set(cell: Cell, value: number): void {
    Atomics.store(this.cells, cell, BigInt(Math.round(value)));
  }
}
