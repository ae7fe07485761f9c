import type { Look } from '../lifecycle/claim/claim-resume-point.js';
import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { RunJobs } from '../lifecycle/run/run.js';
import type { NodeState } from '../job/node-state.js';
import type { Settings } from '../options/settings.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import type { Claim } from '../lifecycle/claim/claim-rows.js';
import type { JobRun } from '../database/entities/index.js';
import type { ClaimsAhead } from './prefetch.js';
import { checkMine, outcomeOf, type JobOutcome, type Launch } from './launch.js';
import type { Suspects } from './suspects.js';
import { waitAtMost } from '../concurrency/timers.js';

/** More outcomes than this waiting to be recorded hold up new work: the database, not the memory, sets the pace. */
const MOST_UNRECORDED = 2_000;

/** A pass waits so long for the jobs it starts to be checked: one that hangs does not stop the others. */
const LAUNCH_MS = 1_000;

/** Launches in one turn of the event loop: a thousand jobs of microseconds kept the next claim from being sent for 10 ms of each 40. */
const TURN = 100;

/**
 * This node's slots, and what fills them: claims, some of them made ahead of a free slot. That needs no
 * guard, for a claim is compare-and-set.
 */
export class Slots {
  private filling: Promise<Launch[]> | undefined;
  private fillingUp: Promise<void> | undefined;
  private moreWaiting = false;
  private askedMeanwhile = false;
  /** Something became due since the last claim was sent. */
  private woken = false;
  private lookAnew = false;
  private readonly launching = new Set<Promise<JobRun>>();
  /** Launched from ahead in this turn. */
  private begun = 0;

  constructor(
    private readonly claims: ClaimJobs,
    private readonly runs: RunJobs,
    private readonly ahead: ClaimsAhead,
    private readonly suspects: Suspects,
    private readonly processes: ProcessRegistry,
    private readonly node: NodeState,
    private readonly settings: Settings,
  ) {
    processes.watch({ removed: () => ahead.ended() });
  }

  get free(): number {
    if (this.settings.role === 'producer') return 0;
    if (this.runs.backlog >= MOST_UNRECORDED) return 0;
    return Math.max(0, this.settings.concurrency - this.processes.size);
  }

  /** Claims what fits and starts it. */
  async start(look: Look): Promise<JobOutcome[]> {
    const launches = await this.fill(look);
    return launches.map(outcomeOf);
  }

  /** Starts what fits, until the slots or the queue are used up. One at a time. */
  async startAll(look: Look = 'affordable'): Promise<void> {
    this.fillingUp ??= this.fillUp(look);
    await this.fillingUp;
  }

  /**
   * A slot may be free: what was claimed ahead goes first, then a claim if the last one left anything
   * behind. While one is under way it is enough to remember that somebody asked.
   */
  refill(): Promise<void> | undefined {
    this.launchAhead();
    this.askedMeanwhile = this.filling !== undefined;
    return !this.askedMeanwhile && this.worthAClaim ? this.startAll('behind') : undefined;
  }

  /** Something is due. @param anew it may lie before what was claimed last */
  wake({ anew = false } = {}): Promise<void> | undefined {
    this.lookAnew ||= anew;
    this.woken = true;
    this.moreWaiting = true;
    return this.refill();
  }

  /** Claims and launches one job, whether a slot is free or not. */
  async launch(claiming: Promise<Claim>): Promise<JobRun> {
    const claimant = this.node.id;
    const launching = claiming.then(async (claim) => {
      await checkMine(claim, claimant, this.node, this.claims);
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
  async idle(): Promise<void> {
    await Promise.allSettled([this.filling, ...this.launching]);
  }

  /** Gives back what was claimed ahead: the node stops. */
  async release(): Promise<void> {
    await this.claims.release(this.ahead.clear());
  }

  /** The same of what has waited for long, while jobs that take longer than those before hold the slots. */
  async releaseOld(): Promise<void> {
    const old = this.ahead.takeOld();
    if (old.length > 0) await this.claims.release(old);
  }

  /** One claim at a time: two would count the same slots as free. */
  private async fill(look: Look): Promise<Launch[]> {
    while (this.filling) await this.filling.catch(() => undefined);
    this.filling = this.claimAndLaunch(look === 'behind' && this.lookAnew ? 'affordable' : look);
    try {
      return await this.filling;
    } finally {
      this.filling = undefined;
      // Should it fail, the next tick says so.
      if (this.askedMeanwhile && !this.fillingUp) void this.refill()?.catch(() => undefined);
    }
  }

  private async fillUp(look: Look): Promise<void> {
    try {
      do {
        this.askedMeanwhile = false;
        await this.fill(look);
      } while (this.worthAClaim);
    } finally {
      // In the same turn as the last look: who asks after it would be told that one is under way.
      this.fillingUp = undefined;
    }
  }

  private get worthAClaim(): boolean {
    return (
      (this.moreWaiting || this.suspects.worthALook) &&
      this.ahead.low &&
      this.free > 0 &&
      this.node.accepting
    );
  }

  private async claimAndLaunch(look: Look): Promise<Launch[]> {
    this.launchAhead();
    this.moreWaiting = true;
    const slots = this.free;
    const limit = Math.min(
      slots + (this.claimsAhead ? this.ahead.room() : 0),
      this.node.batchSize,
      this.settings.batchSize ?? Infinity,
    );
    if (limit === 0) return [];
    this.woken = false;
    this.lookAnew = false;
    const claimant = this.node.id;
    const suspects = slots > 0 ? await this.suspects.claim(look !== 'behind') : [];
    const claimed = await this.claimBeside(suspects, limit, look);
    // An answer for an incarnation that is over: what it claimed is not this node's to run.
    if (this.node.id !== claimant || this.node.fenced) {
      await this.claims.release(
        claimed.map((claim) => claim.claimed),
        claimant,
      );
      return [];
    }
    // Jobs that were claimed ahead may have begun meanwhile, and those that still wait go first.
    const most = this.ahead.length > 0 ? suspects.length : slots;
    const startable = this.node.accepting ? Math.min(most, this.free) : 0;
    this.ahead.put(claimed.slice(startable));
    const launches = claimed.slice(0, startable).map((claim) => ({ claim }));
    // One whose context is not checked by then has its process, its slot and its timeout: it is started.
    await waitAtMost(LAUNCH_MS, Promise.all(launches.map(this.launchOne)));
    this.launchAhead();
    return launches;
  }

  /** @returns the suspects as well */
  private async claimBeside(suspects: Claim[], limit: number, look: Look): Promise<Claim[]> {
    const wanted = limit - suspects.length;
    if (wanted <= 0) return suspects;
    const lateRows = this.claimsAhead && this.ahead.isFast;
    try {
      const next = await this.claims.next(wanted, { look, lateRows });
      this.moreWaiting = next.length === wanted || this.woken;
      return suspects.length > 0 ? [...suspects, ...next] : next;
    } catch (error) {
      // What is claimed is started. Whoever claims next hears it, if it is not over.
      if (suspects.length > 0) return suspects;
      throw error;
    }
  }

  private launchAhead(): void {
    while (this.free > 0 && this.node.accepting && this.begun < TURN) {
      const claim = this.ahead.next();
      if (!claim) return;
      if (this.begun++ === 0) setImmediate(this.nextTurn);
      this.runs.begin(claim.claimed);
    }
  }

  private readonly nextTurn = (): void => {
    const paused = this.begun >= TURN;
    this.begun = 0;
    // Should a claim fail, the next tick says so.
    if (paused) void this.refill()?.catch(() => undefined);
  };

  /** Holds a slot from the call on. Never rejects. */
  private readonly launchOne = async (launch: Launch): Promise<void> => {
    try {
      await this.runs.launch(launch.claim.claimed);
    } catch (error) {
      launch.refused = { error };
    }
  };

  /** Only where the engine goes on by itself: who calls for each pass gets what he asked for. */
  private get claimsAhead(): boolean {
    return this.settings.tickInterval !== false && this.settings.batchSize === undefined;
  }
}
