import { waitAtMost } from '../concurrency/timers.js';
import type { EngineContext } from '../database/engine-context.js';
import type { JobRun } from '../database/entities/index.js';
import { JobNotAvailableError } from '../job/errors.js';
import type { ClaimFrom } from '../lifecycle/claim/claim-resume-point.js';
import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { Claim } from '../lifecycle/claim/claim.sql.js';
import type { Prefetch } from '../lifecycle/claim/prefetch.js';
import type { Suspects } from '../lifecycle/claim/suspects.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import type { RunJobs } from '../lifecycle/run/run-jobs.js';

/** No job starts while more outcomes than this wait to be recorded, so that they do not fill the memory. */
const MAX_UNRECORDED = 2_000;

/** A pass waits at most this long for the checks of the jobs it starts: a check that hangs does not stop the others. */
const LAUNCH_MS = 1_000;

/** Launches in one event-loop turn: a thousand jobs of microseconds delayed the next claim by 10 ms of each 40. */
const LAUNCHES_PER_TURN = 100;

/** The result of one job of a pass. */
export type JobOutcome = { ok: true; jobRun: JobRun } | { ok: false; error: unknown };

/** Counts the successful and the failed outcomes of a pass. */
export function countOutcomes(outcomes: readonly { ok: boolean }[]): {
  okCount: number;
  errorCount: number;
} {
  const okCount = outcomes.filter(({ ok }) => ok).length;
  return { okCount, errorCount: outcomes.length - okCount };
}

interface Launch {
  claim: Claim;
  /** Why its handler was not started. */
  refused?: { error: unknown };
}

/**
 * This node's slots. A slot holds one process; claims fill the free slots, and some claims are prefetched beyond them.
 * No guard is needed: a claim is compare-and-set.
 *
 * There is one claim at a time, because two would count the same slots as free. Three methods claim:
 * - `claimForPass`: one claim, whose launches are the result of a pass. It waits for a claim in flight.
 * - `fillSlots`: the claim loop. It claims until the slots are full or the queue is empty. There is one loop at a time.
 * - `refillSlots`: a slot became free. Prefetched claims start at once. Then the loop begins, unless a claim is in
 *   flight (the request is remembered) or another claim is not worth its statement (`isClaimWorthwhile`).
 *
 * `queue` is the node's knowledge of the ready entries, and decides whether another claim is worthwhile:
 *
 *     mayHaveMore --claim is sent--> claiming --full answer, error or wake-up--> mayHaveMore
 *                                    claiming --answer below the limit--> empty
 *     empty --wake-up--> mayHaveMore
 *
 * So a wake-up that arrives while a claim is in flight is never lost.
 */
export class Slots {
  private queue: 'mayHaveMore' | 'claiming' | 'empty' = 'empty';
  private claiming: Promise<Launch[]> | undefined;
  private loop: Promise<void> | undefined;
  /** A refill was requested while a claim was in flight. */
  private refillRequested = false;
  /** Where the next claim of the loop begins. */
  private nextFrom: ClaimFrom = 'resumePoint';
  private readonly launching = new Set<Promise<JobRun>>();
  /** Prefetched claims that were launched in this event-loop turn. */
  private launchedThisTurn = 0;

  constructor(
    private readonly engine: EngineContext,
    private readonly claims: ClaimJobs,
    private readonly runs: RunJobs,
    private readonly prefetch: Prefetch,
    private readonly suspects: Suspects,
    private readonly processes: ProcessRegistry,
  ) {
    processes.watch({ removed: () => prefetch.countEnd() });
  }

  get free(): number {
    const { role, concurrency } = this.engine.settings;
    if (role === 'producer' || this.runs.backlog >= MAX_UNRECORDED) return 0;
    return Math.max(0, concurrency - this.processes.size);
  }

  async claimForPass(from: ClaimFrom): Promise<JobOutcome[]> {
    const launches = await this.claimOnce(from);
    return launches.map(({ claim, refused }) =>
      refused ? { ok: false, error: refused.error } : { ok: true, jobRun: claim.jobRun() },
    );
  }

  async fillSlots(from: ClaimFrom = 'headIfCheap'): Promise<void> {
    this.loop ??= this.claimInLoop(from);
    await this.loop;
  }

  /** Called for each job that ends. @returns undefined if there is nothing to wait for */
  refillSlots(): Promise<void> | undefined {
    this.launchPrefetched();
    this.refillRequested = this.claiming !== undefined;
    const claimsNow = !this.refillRequested && this.isClaimWorthwhile;
    return claimsNow ? this.fillSlots('resumePoint') : undefined;
  }

  /** A wake-up: a job became due. @param fromHead it may lie before the resume point of the claims */
  startDueJobs({ fromHead = false } = {}): Promise<void> | undefined {
    if (fromHead) this.nextFrom = 'headIfCheap';
    this.queue = 'mayHaveMore';
    return this.refillSlots();
  }

  /** Launches one claimed job, whether a slot is free or not. */
  async launchClaim(claiming: Promise<Claim>): Promise<JobRun> {
    const claimant = this.engine.node.id;
    const launching = claiming.then(async (claim) => {
      await this.checkStillOwned(claim, claimant);
      await this.runs.launch(claim.claimed);
      return claim.jobRun();
    });
    this.launching.add(launching);
    try {
      return await launching;
    } finally {
      this.launching.delete(launching);
    }
  }

  /** Resolves when nothing is being claimed or launched. */
  async waitUntilIdle(): Promise<void> {
    await Promise.allSettled([this.claiming, ...this.launching]);
  }

  /** Releases the prefetched claims to other nodes. */
  async releasePrefetched(): Promise<void> {
    await this.claims.release(this.prefetch.clear());
  }

  /** Releases claims that waited too long, because slower jobs hold the slots now. */
  async releaseOldPrefetched(): Promise<void> {
    const old = this.prefetch.takeOld();
    if (old.length > 0) await this.claims.release(old);
  }

  private async claimOnce(from: ClaimFrom): Promise<Launch[]> {
    while (this.claiming) await this.claiming.catch(() => undefined);
    this.claiming = this.claimAndLaunch(from === 'resumePoint' ? this.nextFrom : from);
    try {
      return await this.claiming;
    } finally {
      this.claiming = undefined;
      // If it fails, the next tick reports it.
      if (this.refillRequested && !this.loop) void this.refillSlots()?.catch(() => undefined);
    }
  }

  private async claimInLoop(from: ClaimFrom): Promise<void> {
    try {
      do {
        this.refillRequested = false;
        await this.claimOnce(from);
      } while (this.isClaimWorthwhile);
    } finally {
      // In the same event-loop turn as the check: a request after it must begin a loop of its own.
      this.loop = undefined;
    }
  }

  private get isClaimWorthwhile(): boolean {
    return (
      (this.queue !== 'empty' || this.suspects.isWorthClaiming) &&
      this.prefetch.isLow &&
      this.free > 0 &&
      this.engine.node.accepting
    );
  }

  private async claimAndLaunch(from: ClaimFrom): Promise<Launch[]> {
    this.launchPrefetched();
    const { node, settings } = this.engine;
    const slots = this.free;
    const limit = Math.min(
      slots + (this.prefetches ? this.prefetch.measureRoom() : 0),
      node.batchSize,
      settings.batchSize ?? Infinity,
    );
    if (limit === 0) {
      this.queue = 'mayHaveMore';
      return [];
    }
    this.queue = 'claiming';
    this.nextFrom = 'resumePoint';
    const claimant = node.id;
    const claimed = await this.claimJobs(slots, limit, from);
    // The claims belong to an incarnation that has ended.
    if (node.id !== claimant || node.fenced) {
      await this.claims.release(
        claimed.jobs.map((claim) => claim.claimed),
        claimant,
      );
      return [];
    }
    // Prefetched claims may have started meanwhile. Claims that still wait start first.
    const startable = this.prefetch.length > 0 ? claimed.suspects : slots;
    const startCount = node.accepting ? Math.min(startable, this.free) : 0;
    this.prefetch.add(claimed.jobs.slice(startCount));
    const launches = claimed.jobs.slice(0, startCount).map((claim) => ({ claim }));
    // A job whose context is still checked after that has its process, slot and timeout: it counts as started.
    await waitAtMost(LAUNCH_MS, Promise.all(launches.map(this.launch)));
    this.launchPrefetched();
    return launches;
  }

  /** @returns the jobs, the suspects among them first */
  private async claimJobs(
    slots: number,
    limit: number,
    from: ClaimFrom,
  ): Promise<{ jobs: Claim[]; suspects: number }> {
    let suspects: Claim[] = [];
    let isFull = true;
    try {
      if (slots > 0) suspects = await this.suspects.claim(from !== 'resumePoint');
      const wanted = limit - suspects.length;
      if (wanted <= 0) return { jobs: suspects, suspects: suspects.length };
      const lateRows = this.prefetches && this.prefetch.prefersLateRows;
      const ready = await this.claims.claimNext(wanted, { from, lateRows });
      isFull = ready.length === wanted;
      return {
        jobs: suspects.length > 0 ? [...suspects, ...ready] : ready,
        suspects: suspects.length,
      };
    } catch (error) {
      // Claimed suspects are started. A lasting error fails the next claim too.
      if (suspects.length === 0) throw error;
      return { jobs: suspects, suspects: suspects.length };
    } finally {
      // A wake-up since the claim was sent has changed it already.
      if (this.queue === 'claiming') this.queue = isFull ? 'mayHaveMore' : 'empty';
    }
  }

  private launchPrefetched(): void {
    while (this.launchedThisTurn < LAUNCHES_PER_TURN && this.free > 0) {
      if (!this.engine.node.accepting) return;
      const claim = this.prefetch.takeNext();
      if (!claim) return;
      if (this.launchedThisTurn++ === 0) setImmediate(this.startNewTurn);
      this.runs.start(claim.claimed);
    }
  }

  private readonly startNewTurn = (): void => {
    const paused = this.launchedThisTurn >= LAUNCHES_PER_TURN;
    this.launchedThisTurn = 0;
    // If a claim fails, the next tick reports it.
    if (paused) void this.refillSlots()?.catch(() => undefined);
  };

  /** Holds a slot from the call on. Never rejects. */
  private readonly launch = async (launch: Launch): Promise<void> => {
    try {
      await this.runs.launch(launch.claim.claimed);
    } catch (error) {
      launch.refused = { error };
    }
  };

  /** Releases a claim that was answered after the node was lost or stopped. @throws JobNotAvailableError */
  private async checkStillOwned({ claimed }: Claim, claimant: string): Promise<void> {
    const { node } = this.engine;
    if (node.id === claimant && node.accepting) return;
    await this.claims.release([claimed], claimant);
    throw new JobNotAvailableError(
      claimed.jobRunIdentifier,
      'this node was stopped or lost during the claim',
    );
  }

  /** False if the caller runs each pass: a pass starts no more than it claims. */
  private get prefetches(): boolean {
    const { tickInterval, batchSize } = this.engine.settings;
    return tickInterval !== false && batchSize === undefined;
  }
}
