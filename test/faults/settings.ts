/** The lab's times: short, so that a minute holds twenty leases. */
export const LEASE_MS = 3_000;
export const TICK_MS = 1_000;
export const SHUTDOWN = { drainTimeout: 1_500, killGracePeriod: 500 } as const;
/** A client that waited so long for its answer takes it for unknown, and asks again. */
export const CALL_MS = 8_000;

/** What the invariants allow. Milliseconds where nothing else is said. */
export interface Limits {
  leaseMs: number;
  tickMs: number;
  /** A lease that is over is noticed after this, on nodes that nothing keeps from it. */
  rescueMs: number;
  /** A cooperative handler whose run is closed stops after this, on a node that nothing keeps from knowing. */
  fenceMs: number;
  /** A guard held for longer is that of a node that cannot let it go. */
  guardStuckMs: number;
  /** Connections that one process holds at the most. */
  connections: number;
  /** After the last heal each node starts something after this. */
  firstStartMs: number;
  /** An enqueue is answered after this while other rows are locked, snapshots are held, or the link is long. */
  enqueueMs: number;
  /** So is the start of a job that is due, */
  startMs: number;
  /** and the record of a run whose handler has ended. */
  finishMs: number;
  /** More of each for a process whose link is long: a transaction takes five answers. */
  distanceMs: number;
}

/**
 * `rescueMs`: a late run row is found by a sweep, one per lease, and by the pass after it; two
 * ticks, as one may just be over; a second for a busy machine. `fenceMs`: a node hears of it by its heartbeat,
 * five in a lease, and may just have sent one. `connections`: the pool of pg (10), the listener, and what the
 * engine may hold of its own. `enqueueMs`, `startMs`, `finishMs`: a first attempt that waits for a lock, and a second
 * for a busy machine; for a start a tick more. Locks last for up to six seconds.
 */
export const LIMITS: Limits = {
  leaseMs: LEASE_MS,
  tickMs: TICK_MS,
  rescueMs: LEASE_MS + 2 * TICK_MS + 1_000,
  fenceMs: (2 * LEASE_MS) / 5 + 1_000,
  guardStuckMs: 1_000,
  connections: 18,
  firstStartMs: 15_000,
  enqueueMs: 1_500,
  startMs: 1_500 + TICK_MS,
  finishMs: 1_500,
  distanceMs: 1_000,
};

/** Drain, grace, five seconds for the last outcomes and for what is told to others, and the app's own connections. */
export const CLOSE_DEADLINE_MS =
  SHUTDOWN.drainTimeout + SHUTDOWN.killGracePeriod + 2 * 5_000 + 3_000;

/** An environment variable that the lab gives its processes. */
export function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name}: expected in the environment, got nothing`);
  return value;
}
