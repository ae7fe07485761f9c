import type { LateRunRows } from '../lifecycle/run/late-run-rows.js';
import type { FinishRuns } from '../lifecycle/finish/finish-runs.js';
import type { RunJobs } from '../lifecycle/run/run-jobs.js';
import { createLockRetry } from '../database/lock-retry.js';
import type { Store } from '../database/store.js';
import type { StoredContexts } from '../context/stored-contexts.js';
import { isSecret } from '../context/envelope.js';
import { JobNotAvailableError, RunNotActiveError } from '../job/errors.js';
import type { Outcome } from '../job/outcome.js';
import { redacted } from '../context/redaction.js';
import type { JobProcess } from '../lifecycle/run/job-process.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { deleteEntry } from '../lifecycle/enqueue/enqueue.sql.js';
import type { JobRun } from '../database/entities/index.js';
import {
  findEntry,
  findRuns,
  requestKill,
  runningFacts,
  storedContext,
} from '../lifecycle/run/run.sql.js';
import type { Killer } from '../lifecycle/run/killer.js';

const MAX_CANCEL_ATTEMPTS = 20;
const WAITING = { onlyWaiting: true };
const ANY = { onlyWaiting: false };

/** Ends, cancels, kills and removes jobs that wait or run, on this node or another. */
export class RunControl {
  private readonly lockRetry;

  constructor(
    private readonly store: Store,
    private readonly processes: ProcessRegistry,
    private readonly finishRuns: FinishRuns,
    private readonly lateRows: LateRunRows,
    private readonly runs: RunJobs,
    private readonly killer: Killer,
    private readonly contexts: StoredContexts,
  ) {
    this.lockRetry = createLockRetry(store.db);
  }

  /** Ends a run, and stops its process, whose outcome is rejected. @throws RunNotActiveError */
  async endRun(
    runId: string,
    outcome: Extract<Outcome, { kind: 'completed' | 'failed' | 'expired' }>,
  ): Promise<JobRun> {
    const ended = await this.finish(runId, await this.encryptIfSecret(runId, outcome));
    this.processes.find(runId)?.fence('its run was ended by a call');
    return ended;
  }

  /** The result of an encrypted job is encrypted, as if its handler had returned it. @throws JobEncryptionKeyError */
  private async encryptIfSecret(runId: string, outcome: Outcome): Promise<Outcome> {
    const result = outcome.kind === 'completed' ? outcome.output : undefined;
    if (result === undefined && outcome.kind !== 'failed') return outcome;
    const { db, tables } = this.store;
    await this.lateRows.ensureWrittenOfRun(runId);
    const run = await storedContext(db, tables, runId);
    if (!run || !isSecret(run)) return outcome;
    if (outcome.kind !== 'completed') return redacted(outcome);
    const output = this.contexts.sealResult(result, run.jobRunIdentifier);
    return { kind: 'completed', output };
  }

  /** Stops a running entry in the database only: its process continues. @returns null when it is not running @throws RunNotActiveError */
  async stopEntry(entryId: string): Promise<JobRun | null> {
    const { db, tables } = this.store;
    await this.lateRows.ensureWrittenOfEntry(entryId);
    const entry = await findEntry(db, tables, { id: entryId });
    if (entry?.status !== 'RUNNING' || entry.currentJobRunId === null) return null;
    return this.finish(entry.currentJobRunId, { kind: 'stopped' });
  }

  /**
   * Cancels an entry: deletes it if it waits or is quarantined (null), and stops its run otherwise. The request is stored
   * first, so the entry is removed however the run ends.
   */
  async cancelEntry(entryId: string): Promise<JobRun | null> {
    const { db, tables } = this.store;
    // Between two attempts a run may end and its entry be reopened, or be claimed by another node.
    for (let attempt = 0; attempt < MAX_CANCEL_ATTEMPTS; attempt++) {
      if (await this.deleteEntry(entryId, WAITING)) return null;
      await this.lateRows.ensureWrittenOfEntry(entryId);
      const entry = await findEntry(db, tables, { id: entryId });
      if (!entry) return null;
      // The entry was released since the delete.
      if (!entry.currentJobRunId) continue;
      const runId = entry.currentJobRunId;
      if (!(await this.requestKill(runId, 'cancelled'))) continue;
      const process = this.processes.find(runId);
      if (!process) return null;
      await this.killer.stopProcess(process, { kind: 'cancelled' });
      await this.runs.fateOf(runId);
      const [run] = await findRuns(db, tables, [runId]);
      return run ?? null;
    }
    throw new JobNotAvailableError(entryId, 'its runs end and start too fast to cancel it');
  }

  /** Deletes an entry, running or not. The row of its run is written before. */
  async removeEntry(entryId: string): Promise<void> {
    const { db, tables } = this.store;
    do await this.lateRows.ensureWrittenOfEntry(entryId);
    while (
      !(await this.deleteEntry(entryId, ANY)) &&
      (await findEntry(db, tables, { id: entryId }))
    );
  }

  /** Stops a run of this node. For a run of another node it leaves a request (null). @throws RunNotActiveError */
  async killRun(runId: string): Promise<JobRun | null> {
    const process = this.processes.find(runId);
    if (process) return this.killProcess(process);
    const ending = this.runs.fateOf(runId);
    if (ending) {
      await ending;
      throw new RunNotActiveError(runId);
    }
    if (await this.requestKill(runId, 'killed')) return null;
    if (
      (await this.lateRows.ensureWrittenOfRun(runId)) &&
      (await this.requestKill(runId, 'killed'))
    )
      return null;
    throw new RunNotActiveError(runId);
  }

  private async killProcess(process: JobProcess): Promise<JobRun> {
    const wasDecided = process.isDecided;
    const end = this.runs.fateOf(process.jobRunId);
    const timedOut = process.ageMs >= process.run.timeoutMs;
    await this.killer.stopProcess(process, {
      kind: timedOut ? 'timedOut' : 'killed',
    });
    const fate = await end;
    // The handler's transaction committed the end before it could be stopped.
    const wasCommitted = process.written?.fate === fate;
    if (!fate || wasDecided || wasCommitted) throw new RunNotActiveError(process.jobRunId);
    return this.readRun(process.jobRunId);
  }

  private async finish(runId: string, outcome: Outcome): Promise<JobRun> {
    const { db, tables } = this.store;
    let facts = await runningFacts(db, tables, runId);
    if (!facts && (await this.lateRows.ensureWrittenOfRun(runId)))
      facts = await runningFacts(db, tables, runId);
    const fate = facts && (await this.finishRuns.finish(facts, outcome));
    if (!fate) throw new RunNotActiveError(runId);
    return this.readRun(runId);
  }

  private requestKill(runId: string, kind: 'killed' | 'cancelled'): Promise<boolean> {
    const { db, tables } = this.store;
    return this.lockRetry.run(`run ${runId}`, () => requestKill(db, tables, runId, kind));
  }

  private deleteEntry(entryId: string, which: { onlyWaiting: boolean }): Promise<boolean> {
    const { db, tables } = this.store;
    return this.lockRetry.run(`queue entry ${entryId}`, () =>
      deleteEntry(db, tables, entryId, which),
    );
  }

  /** A DONE run does not change any more. Only a caller that deletes history can remove it meanwhile. */
  private async readRun(runId: string): Promise<JobRun> {
    const { db, tables } = this.store;
    const [run] = await findRuns(db, tables, [runId]);
    if (!run) throw new RunNotActiveError(runId);
    return run;
  }
}
