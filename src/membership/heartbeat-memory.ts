/** Beats in one lease: four may be lost before a living node, or its run, counts as lost. */
export const HEARTBEATS_PER_LEASE = 5;

/** Milliseconds by a clock that all threads of a process share and that cannot be set. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1_000 + nanoseconds / 1e6;
}

/**
 * How long an answered heartbeat proves that the node is alive. The database counts the lease from a later moment. The
 * margin of one heartbeat leaves time to stop the running jobs.
 */
export const trustedUntil = (sentAt: number, leaseMs: number) =>
  sentAt + leaseMs - leaseMs / HEARTBEATS_PER_LEASE;

enum Cell {
  AliveAt,
  TrustedUntil,
  Lease,
  Running,
  Lag,
  Debugged,
  Count,
}

/**
 * Memory that the main thread and the heartbeat thread share, so that each can read the other's values while its
 * event loop is blocked. Whole microseconds, milliseconds and counts.
 */
export class HeartbeatMemory {
  private readonly cells: BigInt64Array;

  constructor(
    readonly buffer = new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT * Cell.Count),
  ) {
    this.cells = new BigInt64Array(buffer);
  }

  /** When the main thread's event loop last turned: a different number each time. */
  get aliveAt(): number {
    return this.get(Cell.AliveAt) / 1_000;
  }
  set aliveAt(now: number) {
    this.set(Cell.AliveAt, now * 1_000);
  }

  /** Until then the node's lease certainly holds; Infinity before its first heartbeat. */
  get trustedUntil(): number {
    const until = this.get(Cell.TrustedUntil);
    return until === 0 ? Infinity : until / 1_000;
  }
  /** Answers may arrive out of order: a later one never shortens the trust. */
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

  /** @returns the longest event loop lag since the last call, in milliseconds */
  takeLag(): number {
    return Number(Atomics.exchange(this.cells, Cell.Lag, 0n)) / 1_000;
  }
  recordLag(ms: number): void {
    if (ms * 1_000 > this.get(Cell.Lag)) this.set(Cell.Lag, ms * 1_000);
  }

  /** A debugger may hold the main thread at a breakpoint. */
  get isDebugged(): boolean {
    return this.get(Cell.Debugged) === 1;
  }
  set isDebugged(is: boolean) {
    this.set(Cell.Debugged, is ? 1 : 0);
  }

  private get(cell: Cell): number {
    return Number(Atomics.load(this.cells, cell));
  }
  private set(cell: Cell, value: number): void {
    Atomics.store(this.cells, cell, BigInt(Math.round(value)));
  }
}
