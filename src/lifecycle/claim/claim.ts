import {
  JobHandlerNotFoundError,
  JobNotAvailableError,
  JobTemplateInactiveError,
  RunNotActiveError,
} from '../../job/errors.js';
import type { ClaimedRun, RunFacts } from '../../job/run-facts.js';
import type { NodeState } from '../../job/node-state.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { HandlerRegistry } from '../handler-registry.js';
import { isRefusal } from '../../database/database-error.js';
import { adoptRun, claimEntries, claimNext, claimSuspect, releaseClaims } from './claim.sql.js';
import type { Claim } from './claim-rows.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import { findEntry, findRuns } from '../run/run.sql.js';
import { findTemplate } from '../templates/template.sql.js';
import { Answers } from './in-flight-claims.js';
import { ClaimFront, type Look } from './claim-resume-point.js';
import { claimSingly } from './claim-one-by-one.js';
import type { LateRunRows } from '../run/late-run-rows.js';
import type { Quarantine } from './quarantine.js';
import type { Store } from '../../database/store.js';

export interface NextLook {
  look?: Look;
  /** The run rows are written late (`run/late-run-rows`). */
  lateRows?: boolean;
}

/** AVAILABLE entries become RUNNING here, and only here: each for one caller. */
export class ClaimJobs {
  private readonly front = new ClaimFront();
  private readonly answers = new Answers();

  constructor(
    private readonly store: Store,
    private readonly node: NodeState,
    private readonly handlers: HandlerRegistry,
    private readonly lateRows: LateRunRows,
    private readonly quarantine: Quarantine,
    private readonly runsJobs: boolean,
    private readonly extensions: ExtensionPoints,
  ) {}

  /**
   * What is due and this node has handlers for, by priority, then age.
   * @param look behind what this node claimed last, or at the whole queue
   */
  async next(limit: number, { look = 'whole', lateRows = false }: NextLook = {}): Promise<Claim[]> {
    const codes = this.handlers.codes();
    if (limit < 1 || codes.length === 0 || !this.open) return [];
    const { db, tables } = this.store;
    const after = this.front.from(look);
    const begin = performance.now();
    try {
      const { claims, last } = await this.answers.to(
        claimNext(db, tables, this.claimer, codes, limit, { after, lateRows }),
      );
      const tookMs = performance.now() - begin;
      if (lateRows) this.lateRows.track(claims.map(({ claimed }) => claimed));
      this.front.reached(last, after, tookMs, claims.length);
      const { active: afterClaim } = this.extensions.afterClaim;
      if (afterClaim) for (const hook of afterClaim) hook(claims, tookMs);
      return claims;
    } catch (error) {
      if (isRefusal(error)) return this.singly(codes, limit);
      this.lateRows.claimAnswerLost();
      throw error;
    }
  }

  private singly(codes: string[], limit: number): Promise<Claim[]> {
    const { store, claimer, quarantine } = this;
    return this.answers.to(claimSingly(store, claimer, quarantine, codes, limit));
  }

  /** A job that was aboard a node when that was lost, if one is due. */
  async suspect(): Promise<Claim | null> {
    const codes = this.handlers.codes();
    if (codes.length === 0 || !this.open) return null;
    const { db, tables } = this.store;
    return this.quarantine.around(() =>
      this.answers.to(claimSuspect(db, tables, this.claimer, codes)),
    );
  }

  /** @throws JobHandlerNotFoundError when this node could not run such a job */
  checkHandler(code: string): void {
    if (!this.runsJobs || !this.handlers.get(code)) throw new JobHandlerNotFoundError(code);
  }

  /** @throws JobNotAvailableError, JobTemplateInactiveError, JobHandlerNotFoundError: nothing was claimed */
  async entry({
    id,
    jobRunIdentifier,
  }: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>): Promise<Claim> {
    const { db, tables } = this.store;
    const entry = await findEntry(db, tables, { id });
    if (!entry) throw new JobNotAvailableError(jobRunIdentifier, 'it is not in the queue');
    if (entry.status === 'QUARANTINED')
      throw new JobNotAvailableError(
        jobRunIdentifier,
        `it is quarantined: ${entry.quarantineReason}`,
      );
    await this.checkRunnable(entry);
    const [claim] = await this.claimOf(entry);
    if (!claim)
      throw new JobNotAvailableError(
        jobRunIdentifier,
        'it is running, or was claimed by somebody else just now',
      );
    return claim;
  }

  private async claimOf(entry: JobQueueEntry): Promise<Claim[]> {
    const { db, tables } = this.store;
    try {
      return await this.answers.to(claimEntries(db, tables, this.claimer, [entry.id]));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await this.quarantine.put({ id: entry.id, error });
      throw new JobNotAvailableError(
        entry.jobRunIdentifier,
        'the database refuses to claim it: it is quarantined now',
        { cause: error },
      );
    }
  }

  /** A RUNNING run without a process that is this node's, or whose node is gone. @throws RunNotActiveError, JobNotAvailableError */
  async run(runId: string): Promise<Claim> {
    const { db, tables } = this.store;
    const [run] = await findRuns(db, tables, [runId]);
    if (run?.status !== 'RUNNING') throw new RunNotActiveError(runId);
    await this.checkRunnable(run);
    const claim = await adoptRun(db, tables, this.claimer, runId);
    if (!claim)
      throw new JobNotAvailableError(run.jobRunIdentifier, 'its run is alive on another node');
    return claim;
  }

  /** Before anything is claimed, so that a refusal leaves no run behind. */
  private async checkRunnable(job: {
    jobTemplateId: string;
    jobRunIdentifier: string;
  }): Promise<void> {
    if (this.node.closing)
      throw new JobNotAvailableError(job.jobRunIdentifier, 'this node is shutting down');
    this.checkStarted(job.jobRunIdentifier);
    if (this.node.outdated)
      throw new JobNotAvailableError(
        job.jobRunIdentifier,
        "this node's package is older than the tables",
      );
    if (this.runsJobs && !this.node.accepting)
      throw new JobNotAvailableError(
        job.jobRunIdentifier,
        'this node has lost touch with the database',
      );
    const { db, tables } = this.store;
    const template = await findTemplate(db, tables, {
      id: job.jobTemplateId,
    });
    if (!template || !this.open || !this.handlers.get(template.code))
      throw new JobHandlerNotFoundError(template?.code ?? `template ${job.jobTemplateId}`);
    if (!template.active) throw new JobTemplateInactiveError(template.code);
  }

  /** @throws JobNotAvailableError before the engine has started: nothing would renew the run's lease */
  checkStarted(jobRunIdentifier: string): void {
    if (this.runsJobs && !this.node.started)
      throw new JobNotAvailableError(
        jobRunIdentifier,
        'the engine of this node has not started yet',
      );
  }

  /** Claims that will not be launched. @param nodeId under which they were made */
  async release(runs: ClaimedRun[], nodeId = this.node.id): Promise<void> {
    await this.lateRows.ensureWritten(runs);
    await this.releaseRuns(
      runs.map(({ jobRunId }) => jobRunId),
      nodeId,
    );
  }

  /** A claim that this node cannot carry out, and another may: it is claimed again after the next pass at the earliest. */
  async putBack(run: ClaimedRun): Promise<void> {
    await this.lateRows.ensureWritten([run]);
    const { db, tables } = this.store;
    await releaseClaims(db, tables, this.node.id, [run.jobRunId], true);
  }

  /** The same of runs whose rows are written. */
  async releaseRuns(runIds: string[], nodeId = this.node.id): Promise<void> {
    if (runIds.length === 0) return;
    const { db, tables } = this.store;
    await releaseClaims(db, tables, nodeId, runIds);
    this.front.lookBack();
  }

  /** What this node claimed without hearing of it. For its heartbeat, after it has written what is held. */
  async releaseUnheard(held: RunFacts[]): Promise<void> {
    if (await this.lateRows.releaseUnacknowledged(held)) this.front.lookBack();
  }

  /** For how long the oldest claim has been waiting for its answer, in ms. */
  get waitingMs(): number {
    return this.answers.waitingMs;
  }

  private get open(): boolean {
    return this.runsJobs && this.node.accepting;
  }

  private get claimer() {
    return { nodeId: this.node.id, leaseMs: this.node.leaseMs };
  }
}
