import {
  JobHandlerNotFoundError,
  JobNotAvailableError,
  JobTemplateInactiveError,
  RunNotActiveError,
} from '../../job/errors.js';
import { isRefusal } from '../../database/database-error.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import { inSavepoint } from '../../database/transactions/savepoint.js';
import type { ClaimedRun, RunFacts } from '../../job/run-facts.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { HandlerRegistry } from '../handler-registry.js';
import type { LateRunRows } from '../run/late-run-rows.js';
import { findEntry, findRuns } from '../run/run.sql.js';
import { findTemplate } from '../templates/template.sql.js';
import { ClaimResumePoint, type ClaimFrom } from './claim-resume-point.js';
import {
  adoptRun,
  claimEntries,
  claimNext,
  claimSuspect,
  lockNext,
  releaseClaims,
  type Claim,
  type ClaimPart,
} from './claim.sql.js';
import type { Quarantine, Refused } from './quarantine.js';
import type { QuarantinedEntry } from './quarantine.sql.js';

/** AVAILABLE entries become RUNNING here, and only here: each for one caller. */
export class ClaimJobs {
  private readonly resumePoint = new ClaimResumePoint();
  /** Unanswered claims, the oldest first, with the time they were sent (`performance.now()`). */
  private readonly inFlight = new Set<{ sentAt: number }>();

  constructor(
    private readonly engine: EngineContext,
    private readonly handlers: HandlerRegistry,
    private readonly lateRows: LateRunRows,
    private readonly quarantine: Quarantine,
    private readonly extensions: ExtensionPoints,
  ) {}

  /**
   * Claims due entries that this node has handlers for, by priority, then age.
   * @param lateRows the run rows are written late (`run/late-run-rows`)
   */
  async claimNext(
    limit: number,
    { from = 'head', lateRows = false }: { from?: ClaimFrom; lateRows?: boolean } = {},
  ): Promise<Claim[]> {
    const codes = this.handlers.codes();
    if (limit < 1 || codes.length === 0 || !this.isOpen) return [];
    const { db, tables } = this.engine.store;
    const parts = this.contributedParts();
    const after = parts ? null : this.resumePoint.startFrom(from);
    const begin = performance.now();
    try {
      const { claims, last } = await this.track(
        claimNext(db, tables, this.claimer, codes, limit, parts ? { parts } : { after, lateRows }),
      );
      const tookMs = performance.now() - begin;
      if (lateRows && !parts) this.lateRows.track(claims.map(({ claimed }) => claimed));
      this.resumePoint.record(last, after, tookMs, claims.length);
      const { active: afterClaim } = this.extensions.afterClaim;
      if (afterClaim) for (const hook of afterClaim) hook(claims, tookMs);
      return claims;
    } catch (error) {
      if (isRefusal(error)) return this.track(this.claimOneByOne(codes, limit));
      this.lateRows.recordLostClaim();
      throw error;
    }
  }

  /** Undefined: no feature restricts this claim. */
  private contributedParts(): ClaimPart[] | undefined {
    const { active } = this.extensions.claimContributions;
    if (!active) return undefined;
    const parts = active.flatMap((contribution) => contribution() ?? []);
    return parts.length > 0 ? parts : undefined;
  }

  /**
   * Claims entries one after another, for when the database refuses to claim several, and quarantines the entries that it
   * refuses. Three statements per entry, and rare.
   */
  private async claimOneByOne(codes: string[], limit: number): Promise<Claim[]> {
    const { db, tables } = this.engine.store;
    const { quarantine, claimer } = this;
    const claims: Claim[] = [];
    let quarantined: QuarantinedEntry[];
    const claimLocked = async (transaction: Queryable): Promise<Claim[]> => {
      // Locked first, so that the entries that are refused are the ones that are quarantined.
      const ids = await lockNext(transaction, tables, codes, limit - claims.length);
      const claimed: Claim[] = [];
      const refused: Refused[] = [];
      for (const id of ids)
        try {
          const claimOne = () => claimEntries(transaction, tables, claimer, [id]);
          claimed.push(...(await inSavepoint(transaction, claimOne)));
        } catch (error) {
          if (!isRefusal(error)) throw error;
          refused.push({ id, error });
        }
      quarantined = await quarantine.quarantineRefused(refused, claimed.length > 0, transaction);
      return claimed;
    };
    do {
      claims.push(...(await db.transaction(claimLocked)));
      quarantine.emit(quarantined!);
    } while (quarantined!.length > 0 && claims.length < limit);
    return claims;
  }

  /** Claims the next suspect, if one is due. */
  async claimSuspect(): Promise<Claim | null> {
    const codes = this.handlers.codes();
    if (codes.length === 0 || !this.isOpen) return null;
    const { db, tables } = this.engine.store;
    return this.quarantine.retryWithoutMalformed(() =>
      this.track(claimSuspect(db, tables, this.claimer, codes)),
    );
  }

  /** @throws JobHandlerNotFoundError when this node cannot run such a job */
  checkHandler(code: string): void {
    if (!this.runsJobs || !this.handlers.get(code)) throw new JobHandlerNotFoundError(code);
  }

  /** @throws JobNotAvailableError, JobTemplateInactiveError, JobHandlerNotFoundError: nothing was claimed */
  async claimEntry({
    id,
    jobRunIdentifier,
  }: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>): Promise<Claim> {
    const { db, tables } = this.engine.store;
    const entry = await findEntry(db, tables, { id });
    if (!entry) throw new JobNotAvailableError(jobRunIdentifier, 'it is not in the queue');
    if (entry.status === 'QUARANTINED')
      throw new JobNotAvailableError(
        jobRunIdentifier,
        `it is quarantined: ${entry.quarantineReason}`,
      );
    await this.checkRunnable(entry);
    const [claim] = await this.claimOrQuarantine(entry);
    if (!claim)
      throw new JobNotAvailableError(
        jobRunIdentifier,
        'it is running, or another caller has just claimed it',
      );
    return claim;
  }

  private async claimOrQuarantine(entry: JobQueueEntry): Promise<Claim[]> {
    const { db, tables } = this.engine.store;
    try {
      return await this.track(claimEntries(db, tables, this.claimer, [entry.id]));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await this.quarantine.quarantine({ id: entry.id, error });
      throw new JobNotAvailableError(
        entry.jobRunIdentifier,
        'the database refuses to claim it: it is quarantined now',
        { cause: error },
      );
    }
  }

  /** Claims a RUNNING run without a process that is this node's, or whose node is gone. @throws RunNotActiveError, JobNotAvailableError */
  async claimRun(runId: string): Promise<Claim> {
    const { db, tables } = this.engine.store;
    const [run] = await findRuns(db, tables, [runId]);
    if (run?.status !== 'RUNNING') throw new RunNotActiveError(runId);
    await this.checkRunnable(run);
    const claim = await adoptRun(db, tables, this.claimer, runId);
    if (!claim)
      throw new JobNotAvailableError(run.jobRunIdentifier, 'its run is alive on another node');
    return claim;
  }

  /** Before anything is claimed, so that a refusal leaves no run behind. */
  private async checkRunnable({
    jobTemplateId,
    jobRunIdentifier,
  }: {
    jobTemplateId: string;
    jobRunIdentifier: string;
  }): Promise<void> {
    const { store, node } = this.engine;
    const refuse = (why: string) => {
      throw new JobNotAvailableError(jobRunIdentifier, why);
    };
    if (node.closing) refuse('this node is shutting down');
    this.checkStarted(jobRunIdentifier);
    if (node.outdated) refuse("this node's package is older than the tables");
    if (this.runsJobs && !node.accepting) refuse('this node has lost touch with the database');
    const template = await findTemplate(store.db, store.tables, { id: jobTemplateId });
    if (!template || !this.isOpen || !this.handlers.get(template.code))
      throw new JobHandlerNotFoundError(template?.code ?? `template ${jobTemplateId}`);
    if (!template.active) throw new JobTemplateInactiveError(template.code);
  }

  /** @throws JobNotAvailableError before the engine has started: nothing would renew the run's lease */
  checkStarted(jobRunIdentifier: string): void {
    if (this.runsJobs && !this.engine.node.started)
      throw new JobNotAvailableError(
        jobRunIdentifier,
        'the engine of this node has not started yet',
      );
  }

  /** Releases claims that will not be launched. @param nodeId under which they were made */
  async release(runs: ClaimedRun[], nodeId = this.engine.node.id): Promise<void> {
    await this.lateRows.ensureWritten(runs);
    await this.releaseRuns(
      runs.map(({ jobRunId }) => jobRunId),
      nodeId,
    );
  }

  /** Releases a claim that this node cannot run and another may: it is claimed again after the next pass at the earliest. */
  async releaseForOtherNodes(run: ClaimedRun): Promise<void> {
    await this.lateRows.ensureWritten([run]);
    const { store, node } = this.engine;
    await releaseClaims(store.db, store.tables, node.id, [run.jobRunId], true);
  }

  /** Releases claims whose rows are written. */
  async releaseRuns(runIds: string[], nodeId = this.engine.node.id): Promise<void> {
    if (runIds.length === 0) return;
    const { db, tables } = this.engine.store;
    await releaseClaims(db, tables, nodeId, runIds);
    this.resumePoint.requireHead();
  }

  /** Releases claims of this node whose answer was lost. For the renewal of the run leases, after it has written the held runs. */
  async releaseUnacknowledged(held: RunFacts[]): Promise<void> {
    if (await this.lateRows.releaseUnacknowledged(held)) this.resumePoint.requireHead();
  }

  /** For how long the oldest claim has been waiting for its answer, in ms. */
  get waitingMs(): number {
    for (const { sentAt } of this.inFlight) return performance.now() - sentAt;
    return 0;
  }

  private async track<T>(statement: Promise<T>): Promise<T> {
    const sent = { sentAt: performance.now() };
    this.inFlight.add(sent);
    try {
      return await statement;
    } finally {
      this.inFlight.delete(sent);
    }
  }

  private get runsJobs(): boolean {
    return this.engine.settings.role !== 'producer';
  }

  private get isOpen(): boolean {
    return this.runsJobs && this.engine.node.accepting;
  }

  private get claimer() {
    const { id, leaseMs } = this.engine.node;
    return { nodeId: id, leaseMs };
  }
}
