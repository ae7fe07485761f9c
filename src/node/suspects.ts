import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import type { Claim } from '../lifecycle/claim/claim-rows.js';

/** More than a beat takes to come. */
const LOOKS_BACK_MS = 5_000;

/**
 * Jobs that were aboard a node when that was lost: it may have died of them. One of them at a time runs on a node,
 * so that the next loss tells which it is. They are looked for only while there are any.
 */
export class Suspects {
  private known = false;
  private lastLookWasVain = false;
  private running: string | undefined;
  private madeAt = -Infinity;

  constructor(
    private readonly claims: ClaimJobs,
    private readonly processes: ProcessRegistry,
  ) {}

  /** What the node's beat says. It may have looked before some were made. */
  tell(waiting: boolean): void {
    this.known = waiting || performance.now() - this.madeAt < LOOKS_BACK_MS;
  }

  /** A pass of this node has made some. */
  made(): void {
    this.known = true;
    this.madeAt = performance.now();
  }

  /** A look may find one to start. */
  get worthALook(): boolean {
    return this.known && !this.lastLookWasVain && !this.busy;
  }

  /** @param again looks although the last look found none that is due */
  async claim(again: boolean): Promise<Claim[]> {
    if (again) this.lastLookWasVain = false;
    if (!this.worthALook) return [];
    const claim = await this.claims.suspect();
    this.lastLookWasVain = claim === null;
    if (!claim) return [];
    this.running = claim.claimed.jobRunId;
    return [claim];
  }

  private get busy(): boolean {
    return this.running !== undefined && this.processes.find(this.running) !== null;
  }
}
