import type { EntryFate } from '../../job/events.js';
import type { RunFacts } from '../../job/run-facts.js';
import type { Outcome } from '../../job/outcome.js';
import { nameOf, storableOutput } from '../../job/storable-output.js';
import { verdictOn } from '../../job/verdict.js';
import type { HandlerRegistry } from '../handler-registry.js';
import type { WrittenEnd } from '../run/job-process.js';
import {
  databaseCode,
  isConflict,
  isLockTimeout,
  isRefusal,
  isUniqueViolation,
} from '../../database/database-error.js';
import { isUnknown } from '../../database/connection/connection-errors.js';
import {
  findEnds,
  finishMissed,
  finishRuns,
  type Landing,
  type RunEnd,
} from './finish-runs.sql.js';
import type { LateRunRows } from '../run/late-run-rows.js';
import { BLOCKED } from '../../concurrency/lock-retry.js';
import { createLockRetry } from '../../database/lock-retry.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { Quarantine } from '../claim/quarantine.js';
import type { ExtensionPoints } from '../extension-points.js';

const RUNS_PER_STATEMENT = 500;
/** A statement waits this long for locked rows. Then it ends the runs whose rows are not locked. */
const LOCK_TIMEOUT_MS = 200;
const MISSED_PER_STATEMENT = 1_000;
const UNTRANSLATABLE_CHARACTER = '22P05';

interface FinishOptions {
  /** The end lands only if the run's lease is still over. A locked run is left to the next pass. */
  onlyIfExpired?: boolean;
  /** The answer to an earlier attempt was lost. A run that ended just like this counts as landed. */
  isRetry?: boolean;
  /** The end that a transaction of the handler wrote; it wins over the outcome. */
  written?: WrittenEnd | undefined;
}

/**
 * Every end of a run goes through this class: an outcome becomes a verdict, the verdict is written, and one event
 * reports it. Ends that arrive while a statement is in flight share the next one: no waiting at low load, large batches
 * at high load. A locked row delays only its own end.
 */
export class FinishRuns {
  private readonly writes: WriteBatcher<RunEnd, EntryFate | null>;
  /** Lookups of ends whose answer was lost and whose second attempt did not land: the first may have landed. */
  private readonly lookups: WriteBatcher<RunEnd, EntryFate | null>;

  constructor(
    private readonly engine: EngineContext,
    private readonly handlers: HandlerRegistry,
    private readonly lateRows: LateRunRows,
    private readonly quarantine: Quarantine,
    private readonly extensionPoints: ExtensionPoints,
  ) {
    const { db, tables } = engine.store;
    const batch = {
      maxItems: RUNS_PER_STATEMENT,
      bytesOf: ({ output, error }: RunEnd) => (output?.length ?? 0) + (error?.length ?? 0),
      isItemFault: (error: unknown) => isRefusal(error) || isConflict(error),
    };
    this.writes = new WriteBatcher<RunEnd, EntryFate | null>({
      ...batch,
      write: (ends) => this.writeBatch(ends),
      lockRetry: createLockRetry(db),
      writeBlocked: (ends) => this.writeUnlocked(ends),
    });
    this.lookups = new WriteBatcher<RunEnd, EntryFate | null>({
      ...batch,
      write: (ends) => findEnds(db, tables, ends),
    });
  }

  /** @returns what happened to the entry, or null when the run had ended before: then nothing was changed */
  async finish(
    run: RunFacts,
    outcome: Outcome,
    options: FinishOptions = {},
  ): Promise<EntryFate | null> {
    const { onlyIfExpired = false, isRetry = false, written } = options;
    if (written) return this.finishCommitted(run, outcome, written, isRetry);
    const fate = await this.write(this.toRunEnd(run, outcome, onlyIfExpired), isRetry);
    // A lease that was renewed meanwhile rejects no outcome of a handler.
    if (fate || !onlyIfExpired) this.emitFinished(run, outcome, fate);
    return fate;
  }

  /** Reports the outcome of a run that does not belong to this node any more. Writes nothing. */
  rejectFinish(run: RunFacts, outcome: Outcome): void {
    this.emitFinished(run, outcome, null);
  }

  /** Ends the entries that were never started and whose `startBefore` is over. */
  async finishMissedEntries(): Promise<void> {
    const { store, events, node } = this.engine;
    for (;;) {
      const missed = await finishMissed(store.db, store.tables, {
        nodeId: node.id,
        limit: MISSED_PER_STATEMENT,
        hooks: this.extensionPoints.onFinish.active,
      });
      for (const run of missed)
        events.emit('run.finished', { ...run, outcome: 'missed', entry: 'removed' });
      if (missed.length < MISSED_PER_STATEMENT || node.closing) return;
    }
  }

  /** Finishes a run whose end was written in a transaction. Reads the run if the answer to the commit was lost. */
  private async finishCommitted(
    run: RunFacts,
    outcome: Outcome,
    { output, fate: known }: WrittenEnd,
    isRetry: boolean,
  ): Promise<EntryFate | null> {
    const completed = { kind: 'completed', output } as const;
    const committed = this.toRunEnd(run, completed);
    let fate = known === undefined ? await this.lookups.add(committed) : known;
    if (fate === null && known === undefined) {
      // Waits for the transaction if it is still open.
      const ended = await this.write(this.toRunEnd(run, outcome), isRetry);
      if (ended) {
        this.emitFinished(run, outcome, ended);
        return ended;
      }
      fate = await this.lookups.add(committed);
    }
    this.emitFinished(run, fate ? completed : outcome, fate);
    return fate;
  }

  private toRunEnd(run: RunFacts, outcome: Outcome, onlyIfExpired = false): RunEnd {
    const { jobRunId, jobQueueEntryId } = run;
    const verdict = this.verdictOn(run, outcome);
    const hasLateRow = this.lateRows.isLate(run);
    return {
      jobRunId,
      jobQueueEntryId,
      outcome: outcome.kind,
      onlyIfExpired,
      hasLateRow,
      ...verdict,
    };
  }

  private verdictOn(run: RunFacts, outcome: Outcome) {
    const { events, settings } = this.engine;
    const backoff = this.handlers.get(run.templateCode)?.backoff ?? settings.backoff;
    try {
      return verdictOn(outcome, run, backoff, Math.random());
    } catch (error) {
      // A backoff function that throws must not keep the run from ending.
      events.emit('engine.error', { doing: `computing the backoff of ${run.templateCode}`, error });
      const exponential = { type: 'exponential' } as const;
      return verdictOn(outcome, { ...run, backoff: exponential }, 'none', Math.random());
    }
  }

  private async write(end: RunEnd, isRetry: boolean): Promise<EntryFate | null> {
    try {
      const fate = await this.writes.add(end);
      return fate ?? (isRetry ? await this.lookups.add(end) : null);
    } catch (error) {
      if (isUnknown(error) && !isRetry)
        return this.write(end, true).catch(() => {
          // Tells the caller's next attempt that this one may have landed.
          throw error;
        });
      return this.writeStripped(end, error);
    }
  }

  /**
   * Writes a refused end without its output and error, so that the run does not stay RUNNING. If PostgreSQL refuses the
   * entry's row too, the entry is quarantined.
   */
  private async writeStripped(end: RunEnd, refusal: unknown): Promise<EntryFate | null> {
    if (!isRefusal(refusal)) throw refusal;
    const stripped = withoutValues(end, refusal);
    try {
      return await this.writes.add(stripped);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // The first refusal names the cause best.
      await this.quarantine.quarantine({ id: end.jobQueueEntryId, error: refusal });
      return this.writes.add(stripped);
    }
  }

  private async writeBatch(ends: RunEnd[]): Promise<Landing[]> {
    try {
      return await this.writeEnds(ends, false);
    } catch (error) {
      if (isLockTimeout(error)) return this.writeUnlocked(ends);
      // Another run of an identifier has a retry number already: the slower statement takes the next one.
      if (isUniqueViolation(error) && ends.some(({ hasLateRow }) => hasLateRow))
        return this.writeEnds(
          ends.map((end) => ({ ...end, hasLateRow: false })),
          false,
        );
      throw error;
    }
  }

  /** Ends the runs that no other transaction has locked. A locked run that expired is left to the next pass. */
  private async writeUnlocked(ends: RunEnd[]): Promise<Landing[]> {
    const blocked = (end: RunEnd) => (end.onlyIfExpired ? null : BLOCKED);
    try {
      const landings = await this.writeEnds(ends, true);
      return landings.map((landing, index) =>
        landing === BLOCKED ? blocked(ends[index]!) : landing,
      );
    } catch (error) {
      // A whole table is locked, or a run waits for a lock on other rows than its own.
      if (!isLockTimeout(error)) throw error;
      return ends.map(blocked);
    }
  }

  private writeEnds(ends: RunEnd[], skipLocked: boolean): Promise<Landing[]> {
    const { db, tables } = this.engine.store;
    // Well below the query timeout: a later answer would count as a lost connection.
    const lockMs = Math.ceil(Math.min(LOCK_TIMEOUT_MS, db.queryTimeoutMs / 8));
    const hooks = this.extensionPoints.onFinish.active;
    return finishRuns(db, tables, ends, { skipLocked, lockMs, hooks });
  }

  private emitFinished(run: RunFacts, outcome: Outcome, fate: EntryFate | null): void {
    const { jobRunId, jobRunIdentifier, templateCode, retry } = run;
    const { events } = this.engine;
    if (!fate)
      return events.emit('run.finishRejected', {
        jobRunId,
        jobRunIdentifier,
        templateCode,
        retry,
        outcome: outcome.kind,
      });
    events.emit('run.finished', {
      jobRunId,
      jobRunIdentifier,
      templateCode,
      retry,
      outcome: outcome.kind,
      entry: fate,
      errorName:
        outcome.kind === 'failed' || outcome.kind === 'failedForGood'
          ? nameOf(outcome.error)
          : undefined,
    });
  }
}

function withoutValues(end: RunEnd, refusal: unknown): RunEnd {
  const code = databaseCode(refusal);
  const output =
    end.output === null
      ? null
      : storableOutput({ $unserializable: `PostgreSQL refused it (${code})` });
  // The database's encoding lacks a character: its error text is worth keeping without it.
  if (code === UNTRANSLATABLE_CHARACTER)
    return { ...end, output, reason: asciiOf(end.reason), error: asciiOf(end.error) };
  return { ...end, output, error: null };
}

const asciiOf = (text: string | null) => text && text.replace(/[^\x00-\x7f]/gu, '?');
