import type { Backoff } from '../../job/backoff.js';
import type { EntryFate, JobEvents } from '../../job/events.js';
import type { RunFacts } from '../../job/run-facts.js';
import type { Outcome } from '../../job/outcome.js';
import { nameOf, storableOutput } from '../../job/storable-output.js';
import { verdictOn } from '../../job/verdict.js';
import type { HandlerRegistry } from '../handler-registry.js';
import type { WrittenEnd } from '../run/job-process.js';
import { databaseCode, isConflict, isRefusal } from '../../database/database-error.js';
import { isUnknown } from '../../database/connection/connection-errors.js';
import { endRunInTime, endRuns, findEnds, type RunEnd } from './finish.sql.js';
import type { DeferredRuns } from '../run/late-run-rows.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import type { Quarantine } from '../claim/quarantine.js';
import type { Store } from '../../database/store.js';

const RUNS_PER_STATEMENT = 500;

interface FinishOptions {
  /** Lands only if the run's lease is still over. */
  onlyIfExpired?: boolean;
  /** The answer to this very end was lost before: what it finds done as it says has landed. */
  again?: boolean;
  /** The end that a transaction of the handler's wrote, whatever the outcome is since. */
  written?: WrittenEnd | undefined;
}

/**
 * The one door out: whatever ends a run comes through here as an outcome. Ends that come while a
 * statement is under way leave together with the next one: no waiting at low load, large batches at
 * high load.
 */
export class FinishDoor {
  private readonly writes = new WriteBatcher<RunEnd, EntryFate | null>({
    maxItems: RUNS_PER_STATEMENT,
    bytesOf: ({ output, error }) => (output?.length ?? 0) + (error?.length ?? 0),
    write: (ends) => endRuns(this.store.db, this.store.tables, ends),
    isItemFault: (error) => isRefusal(error) || isConflict(error),
  });

  /** Ends whose answer was lost, and which did not land the second time: they may have the first time. */
  private readonly looks = new WriteBatcher<RunEnd, EntryFate | null>({
    maxItems: RUNS_PER_STATEMENT,
    bytesOf: ({ output, error }) => (output?.length ?? 0) + (error?.length ?? 0),
    write: (ends) => findEnds(this.store.db, this.store.tables, ends),
    isItemFault: isRefusal,
  });

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly handlers: HandlerRegistry,
    private readonly deferred: DeferredRuns,
    private readonly quarantine: Quarantine,
    private readonly defaultBackoff: Backoff,
  ) {}

  /**
   * @returns what became of the entry, or null when somebody else had ended it: then nothing was changed
   */
  finish(
    run: RunFacts,
    outcome: Outcome,
    { onlyIfExpired = false, again = false, written }: FinishOptions = {},
  ): Promise<EntryFate | null> {
    if (written) return this.settle(run, outcome, written, again);
    if (!run.deferred) return this.end(run, outcome, onlyIfExpired, again);
    return outcome.kind === 'completed'
      ? this.endDeferred(run, outcome, again)
      : this.writeAndEnd(run, outcome, again);
  }

  /** The end of a run that was taken away: it is told of, and nothing is written. */
  lose(run: RunFacts, outcome: Outcome): void {
    this.tell(run, outcome, null);
  }

  private endDeferred(
    run: RunFacts,
    outcome: Extract<Outcome, { kind: 'completed' }>,
    again: boolean,
  ): Promise<EntryFate | null> {
    return this.deferred.end(run, storableOutput(outcome.output)).then((landed) => {
      if (!landed) return this.writeAndEnd(run, outcome, again);
      this.tell(run, outcome, 'removed');
      return 'removed';
    });
  }

  private async writeAndEnd(
    run: RunFacts,
    outcome: Outcome,
    again: boolean,
  ): Promise<EntryFate | null> {
    await this.deferred.write([run]);
    return this.end(run, outcome, false, again);
  }

  private async end(
    run: RunFacts,
    outcome: Outcome,
    onlyIfExpired: boolean,
    again: boolean,
  ): Promise<EntryFate | null> {
    const end = this.endOf(run, outcome, onlyIfExpired);
    const landed = await this.write(end, again);
    // A lease that was renewed meanwhile is good news, and nobody's loss.
    if (landed || !onlyIfExpired) this.tell(run, outcome, landed);
    return landed;
  }

  /** An end that was written in a transaction: where nobody knows whether that was committed, the run is looked at. */
  private async settle(
    run: RunFacts,
    outcome: Outcome,
    { output, fate }: WrittenEnd,
    again: boolean,
  ): Promise<EntryFate | null> {
    const completed = { kind: 'completed', output } as const;
    const written = this.endOf(run, completed);
    let landed = fate;
    if (landed === undefined) landed = await this.looks.add(written);
    if (landed === null && fate === undefined) {
      // By itself: it waits for the transaction, should that be under way still.
      const { db, tables } = this.store;
      const end = this.endOf(run, outcome);
      const ended =
        (await endRunInTime(db, tables, end)) ?? (again ? await this.looks.add(end) : null);
      if (ended) {
        this.tell(run, outcome, ended);
        return ended;
      }
      landed = await this.looks.add(written);
    }
    this.tell(run, landed ? completed : outcome, landed ?? null);
    return landed ?? null;
  }

  private endOf(run: RunFacts, outcome: Outcome, onlyIfExpired = false): RunEnd {
    const { jobRunId, jobQueueEntryId } = run;
    const verdict = this.verdict(run, outcome);
    return { jobRunId, jobQueueEntryId, onlyIfExpired, ...verdict };
  }

  private async write(end: RunEnd, again: boolean): Promise<EntryFate | null> {
    try {
      const landed = await this.writes.add(end);
      return landed ?? (again ? await this.looks.add(end) : null);
    } catch (error) {
      if (isUnknown(error) && !again)
        return this.write(end, true).catch(() => {
          // Whoever tries again has to know that it may have landed.
          throw error;
        });
      return this.endBare(end, error);
    }
  }

  /**
   * What PostgreSQL cannot store is left out: a run must not stay RUNNING for that. If it is the entry's row that
   * it refuses to write, the entry is put aside.
   */
  private async endBare(end: RunEnd, refused: unknown): Promise<EntryFate | null> {
    if (!isRefusal(refused)) throw refused;
    const without = bare(end, refused);
    try {
      return await this.writes.add(without);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // What was said first says most.
      await this.quarantine.put({ id: end.jobQueueEntryId, error: refused });
      return this.writes.add(without);
    }
  }

  private verdict(run: RunFacts, outcome: Outcome) {
    const backoff = this.handlers.get(run.templateCode)?.backoff ?? this.defaultBackoff;
    try {
      return verdictOn(outcome, run, backoff, Math.random());
    } catch (error) {
      // A backoff function that throws must not keep the run from ending.
      this.events.emit('engine.error', {
        doing: `the backoff of ${run.templateCode}`,
        error,
      });
      const backoff = { type: 'exponential' } as const;
      return verdictOn(outcome, { ...run, backoff }, 'none', Math.random());
    }
  }

  private tell(run: RunFacts, outcome: Outcome, landed: EntryFate | null): void {
    const { jobRunId, jobRunIdentifier, templateCode, retry } = run;
    if (!landed)
      return this.events.emit('run.finishLost', {
        jobRunId,
        jobRunIdentifier,
        templateCode,
        retry,
        outcome: outcome.kind,
      });
    this.events.emit('run.finished', {
      jobRunId,
      jobRunIdentifier,
      templateCode,
      retry,
      outcome: outcome.kind,
      entry: landed,
      errorName:
        outcome.kind === 'failed' || outcome.kind === 'failedForGood'
          ? nameOf(outcome.error)
          : undefined,
    });
  }
}

function bare(end: RunEnd, error: unknown): RunEnd {
  const why = `PostgreSQL refused it (${databaseCode(error)})`;
  return {
    ...end,
    error: null,
    output: end.output === null ? null : storableOutput({ $unserializable: why }),
  };
}
