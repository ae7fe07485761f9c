import type { ClaimJobs } from '../life/claim.js';
import type { ProcessRegistry } from '../runner/process-registry.js';
import type { Claim } from '../store/claim-rows.js';

/**
 * Jobs that were aboard a node when that was lost: it may have died of them. One of them at a time runs on a node,
 * so that the next loss tells which it is. They are looked for only while there are any.
 */
export class Suspects {
  private known = false;
  private lastLookWasVain = false;
  private running: string | undefined;

  constructor(
    private readonly claims: ClaimJobs,
    private readonly processes: ProcessRegistry,
  ) {}

  /** The database says whether there are any, or some have just been made. */
  tell(waiting: boolean): void {
    this.known = waiting;
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
    return (
      this.running !== undefined && this.processes.find(this.running) !== null
    );
  }
}
