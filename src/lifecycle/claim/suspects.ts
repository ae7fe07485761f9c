import type { ProcessRegistry } from '../run/process-registry.js';
import type { Claim } from './claim.sql.js';
import type { ClaimJobs } from './claim.js';

/** Longer than the time between two heartbeats. */
const EXPECT_FOR_MS = 5_000;

/**
 * A suspect is a job that ran on a node when the node was lost, and may have killed it. A node runs one suspect at a
 * time, so the next loss identifies the job. Suspects are claimed only while some wait.
 */
export class Suspects {
  private expected = false;
  private lastClaimWasEmpty = false;
  private runningId: string | undefined;
  private foundAt = -Infinity;

  constructor(
    private readonly claims: ClaimJobs,
    private readonly processes: ProcessRegistry,
  ) {}

  /** Records the answer of the node's heartbeat, which may be older than the last pass of this node. */
  expect(areWaiting: boolean): void {
    this.expected = areWaiting || performance.now() - this.foundAt < EXPECT_FOR_MS;
  }

  /** Records that a pass of this node found suspects. */
  expectNow(): void {
    this.expected = true;
    this.foundAt = performance.now();
  }

  /** A claim may find one to start. */
  get isWorthClaiming(): boolean {
    return this.expected && !this.lastClaimWasEmpty && !this.isRunning;
  }

  /** @param retryEmpty claim although the last claim found none that is due */
  async claim(retryEmpty: boolean): Promise<Claim[]> {
    if (retryEmpty) this.lastClaimWasEmpty = false;
    if (!this.isWorthClaiming) return [];
    const claim = await this.claims.claimSuspect();
    this.lastClaimWasEmpty = claim === null;
    if (!claim) return [];
    this.runningId = claim.claimed.jobRunId;
    return [claim];
  }

  private get isRunning(): boolean {
    return this.runningId !== undefined && this.processes.find(this.runningId) !== null;
  }
}
