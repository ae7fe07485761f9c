import type { DeferredRuns } from '../lifecycle/run/late-run-rows.js';
import type { FinishDoor } from '../lifecycle/finish/finish.js';
import type { RunJobs } from '../lifecycle/run/run.js';
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
import type { Killer } from '../node/killer.js';

const CANCEL_LOOKS = 20;
const WAITING = { onlyWaiting: true };
const ANY = { onlyWaiting: false };

/** What somebody may do to a job from outside while it waits or runs, on this node or another. */
export class Interventions {
  constructor(
    private readonly store: Store,
    private readonly processes: ProcessRegistry,
    private readonly door: FinishDoor,
    private readonly deferred: DeferredRuns,
    private readonly runs: RunJobs,
    private readonly killer: Killer,
    private readonly contexts: StoredContexts,
  ) {}

  /** Ends a run by hand. What its process still does would be in vain, so it is told. @throws RunNotActiveError */
  async end(
    runId: string,
    outcome: Extract<Outcome, { kind: 'completed' | 'failed' | 'expired' }>,
  ): Promise<JobRun> {
    const ended = await this.finish(runId, await this.sealed(runId, outcome));
    this.processes.find(runId)?.fence('its run was closed by hand');
    return ended;
  }

  /** What somebody says of an encrypted job is kept as if its handler had said it. @throws JobEncryptionKeyError */
  private async sealed(runId: string, outcome: Outcome): Promise<Outcome> {
    const says = outcome.kind === 'completed' ? outcome.output : undefined;
    if (says === undefined && outcome.kind !== 'failed') return outcome;
    const { db, tables } = this.store;
    await this.surface(runId);
    const run = await storedContext(db, tables, runId);
    if (!run || !isSecret(run)) return outcome;
    if (outcome.kind !== 'completed') return redacted(outcome);
    const output = this.contexts.sealedResult(says, run.jobRunIdentifier);
    return { kind: 'completed', output };
  }

  /** Takes a running entry back, in the database only. @returns null when it is not running @throws RunNotActiveError */
  async takeBack(entryId: string): Promise<JobRun | null> {
    const { db, tables } = this.store;
    await this.deferred.writeOf(entryId);
    const entry = await findEntry(db, tables, { id: entryId });
    if (entry?.status !== 'RUNNING' || entry.currentJobRunId === null) return null;
    return this.finish(entry.currentJobRunId, { kind: 'stopped' });
  }

  /**
   * Deletes an entry that waits or is quarantined (null), stops a running one for good. The request is in the database before
   * anything else is done: however the run ends then, the job does not come back.
   */
  async cancel(entryId: string): Promise<JobRun | null> {
    const { db, tables } = this.store;
    // Between two looks a run may end and the entry be reopened, or be claimed again.
    for (let look = 0; look < CANCEL_LOOKS; look++) {
      if (await deleteEntry(db, tables, entryId, WAITING)) return null;
      await this.deferred.writeOf(entryId);
      const entry = await findEntry(db, tables, { id: entryId });
      if (!entry) return null;
      // Given back since it was not deleted.
      if (!entry.currentJobRunId) continue;
      const runId = entry.currentJobRunId;
      if (!(await requestKill(db, tables, runId, 'cancelled'))) continue;
      const process = this.processes.find(runId);
      if (!process) return null;
      await this.killer.stop(process, { kind: 'cancelled' });
      await this.runs.endOf(runId);
      const [run] = await findRuns(db, tables, [runId]);
      return run ?? null;
    }
    throw new JobNotAvailableError(entryId, 'its runs end and begin too fast to cancel it');
  }

  /** Deletes an entry, running or not. A run of it has its row by then. */
  async remove(entryId: string): Promise<void> {
    const { db, tables } = this.store;
    do await this.deferred.writeOf(entryId);
    while (
      !(await deleteEntry(db, tables, entryId, ANY)) &&
      (await findEntry(db, tables, { id: entryId }))
    );
  }

  /** Stops a run that is here; leaves word (null) for the node of one that is not. @throws RunNotActiveError */
  async kill(runId: string): Promise<JobRun | null> {
    const process = this.processes.find(runId);
    if (process) return this.killHere(process);
    const ending = this.runs.endOf(runId);
    if (ending) {
      await ending;
      throw new RunNotActiveError(runId);
    }
    const { db, tables } = this.store;
    const ask = () => requestKill(db, tables, runId, 'killed');
    if (await ask()) return null;
    if ((await this.surface(runId)) && (await ask())) return null;
    throw new RunNotActiveError(runId);
  }

  private async killHere(process: JobProcess): Promise<JobRun> {
    const over = process.isDecided;
    const end = this.runs.endOf(process.jobRunId);
    const timedOut = process.ageMs >= process.run.timeoutMs;
    await this.killer.stop(process, {
      kind: timedOut ? 'timedOut' : 'killed',
    });
    const landed = await end;
    // It was committed with its end before it could be stopped.
    const done = process.written?.fate === landed;
    if (!landed || over || done) throw new RunNotActiveError(process.jobRunId);
    return this.ended(process.jobRunId);
  }

  private async finish(runId: string, outcome: Outcome): Promise<JobRun> {
    const { db, tables } = this.store;
    const look = () => runningFacts(db, tables, runId);
    let facts = await look();
    if (!facts && (await this.surface(runId))) facts = await look();
    const landed = facts && (await this.door.finish(facts, outcome));
    if (!landed) throw new RunNotActiveError(runId);
    return this.ended(runId);
  }

  /** Has the row of a run written that is deferred. @returns whether there was none, so that another look may find it */
  private async surface(runId: string): Promise<boolean> {
    const { db, tables } = this.store;
    const [run] = await findRuns(db, tables, [runId]);
    if (run) return false;
    await this.deferred.writeRun(runId);
    return true;
  }

  /** A run that is DONE changes no more; only somebody who deletes history can take it away meanwhile. */
  private async ended(runId: string): Promise<JobRun> {
    const { db, tables } = this.store;
    const [run] = await findRuns(db, tables, [runId]);
    if (!run) throw new RunNotActiveError(runId);
    return run;
  }
}
