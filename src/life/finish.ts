import type { Backoff } from '../model/backoff.js';
import type { JobEvents } from '../model/events.js';
import type { RunFacts } from '../model/facts.js';
import type { Outcome } from '../model/outcome.js';
import { nameOf, storableOutput } from '../policy/storable.js';
import { verdictOn } from '../policy/verdict.js';
import type { HandlerRegistry } from '../runner/handler-registry.js';
import { databaseCode } from '../store/database-error.js';
import { endRuns, type LandedEnd, type RunEnd } from '../store/finish.store.js';
import type { Store } from './store.js';

const RUNS_PER_STATEMENT = 500;

interface Waiting {
  end: RunEnd;
  resolve: (landed: LandedEnd | null) => void;
  reject: (error: unknown) => void;
}

/**
 * The one door out: whatever ends a run comes through here as an outcome. Ends that come while a
 * statement is under way leave together with the next one: no waiting at low load, large batches at
 * high load.
 */
export class FinishDoor {
  private waiting: Waiting[] = [];
  private flushing = false;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly handlers: HandlerRegistry,
    private readonly defaultBackoff: Backoff,
  ) {}

  /**
   * @param onlyIfExpired lands only if the run's lease is still over
   * @returns the run as it ended, or null when somebody else had ended it: then nothing was changed
   */
  async finish(
    run: RunFacts,
    outcome: Outcome,
    { onlyIfExpired = false } = {},
  ): Promise<LandedEnd | null> {
    const end = {
      jobRunId: run.jobRunId,
      onlyIfExpired,
      ...this.verdict(run, outcome),
    };
    const landed = await this.leave(end);
    // A lease that was renewed meanwhile is good news, and nobody's loss.
    if (landed || !onlyIfExpired) this.tell(run, outcome, landed);
    return landed;
  }

  private verdict(run: RunFacts, outcome: Outcome) {
    const backoff =
      this.handlers.get(run.templateCode)?.backoff ?? this.defaultBackoff;
    try {
      return verdictOn(outcome, run, backoff, Math.random());
    } catch (error) {
      // A backoff function that throws must not keep the run from ending.
      this.events.emit('engine.error', {
        doing: `the backoff of ${run.templateCode}`,
        error,
      });
      return verdictOn(
        outcome,
        { ...run, backoff: { type: 'exponential' } },
        'none',
        Math.random(),
      );
    }
  }

  private leave(end: RunEnd): Promise<LandedEnd | null> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ end, resolve, reject });
      if (!this.flushing) void this.flush();
    });
  }

  private async flush(): Promise<void> {
    this.flushing = true;
    // Those who finish in this very turn of the event loop come along.
    await Promise.resolve();
    while (this.waiting.length > 0)
      await this.write(this.waiting.splice(0, RUNS_PER_STATEMENT));
    this.flushing = false;
  }

  /** Never rejects. */
  private async write(batch: Waiting[]): Promise<void> {
    try {
      const { dataSource, tables } = this.store;
      const landed = await endRuns(
        dataSource,
        tables,
        batch.map(({ end }) => end),
      );
      for (const [index, { resolve }] of batch.entries())
        resolve(landed[index] ?? null);
    } catch (error) {
      await this.writeInParts(batch, error);
    }
  }

  /** One end that PostgreSQL cannot store must not hold up its neighbours, nor itself for ever. */
  private async writeInParts(batch: Waiting[], error: unknown): Promise<void> {
    const [first, ...others] = batch as [Waiting, ...Waiting[]];
    if (!isDataError(error) || (others.length === 0 && isBare(first.end))) {
      for (const { reject } of batch) reject(error);
    } else if (others.length === 0) {
      await this.write([{ ...first, end: bare(first.end, error) }]);
    } else {
      const half = Math.ceil(batch.length / 2);
      await this.write(batch.slice(0, half));
      await this.write(batch.slice(half));
    }
  }

  private tell(
    run: RunFacts,
    outcome: Outcome,
    landed: LandedEnd | null,
  ): void {
    const { jobRunId, jobRunIdentifier, templateCode, retry } = run;
    const event = {
      jobRunId,
      jobRunIdentifier,
      templateCode,
      retry,
      outcome: outcome.kind,
    };
    if (!landed) return this.events.emit('run.finishLost', event);
    this.events.emit('run.finished', {
      ...event,
      entry: landed.entry,
      ...(outcome.kind === 'failed' && { errorName: nameOf(outcome.error) }),
    });
  }
}

/** data_exception and program_limit_exceeded: the values are at fault, trying again would not help. */
const isDataError = (error: unknown) =>
  /^(22|54)/.test(databaseCode(error) ?? '');

const isBare = (end: RunEnd) =>
  end.error === null && (end.output?.startsWith('{"$unserializable"') ?? true);

function bare(end: RunEnd, error: unknown): RunEnd {
  const why = `PostgreSQL refused it (${databaseCode(error)})`;
  return {
    ...end,
    error: null,
    output:
      end.output === null ? null : storableOutput({ $unserializable: why }),
  };
}
