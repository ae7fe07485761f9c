import type { EntryFate, JobEventMap, JobRun, OutcomeKind } from 'nestjs-bildad';
import { In } from 'typeorm';
import type { TestEngine } from './engines.js';

/** A run that has ended. */
export interface FinishedRun {
  /** Its template's. */
  code: string;
  outcome: OutcomeKind;
  /** What became of the job: `'reopened'` where it will run again. */
  entry: EntryFate;
  /** As the database has it. */
  run: JobRun;
}

type Ended = JobEventMap['run.finished'][0];

/** What becomes of runs, from when it is made until it is closed. */
export class Ends {
  readonly ended: Ended[] = [];
  private readonly begun = new Set<string>();
  private readonly over = new Set<string>();
  private wake: () => void = () => undefined;
  private readonly stop: (() => void)[];

  constructor({ events }: TestEngine) {
    const end = (jobRunId: string) => {
      this.over.add(jobRunId);
      this.wake();
    };
    this.stop = [
      events.on('run.started', ({ jobRunId }) => this.expect(jobRunId)),
      events.on('run.finished', (run) => {
        this.ended.push(run);
        end(run.jobRunId);
      }),
      events.on('run.finishRejected', ({ jobRunId }) => end(jobRunId)),
    ];
  }

  expect(jobRunId: string): void {
    this.begun.add(jobRunId);
  }

  /** Of all that began. */
  async all(): Promise<void> {
    while ([...this.begun].some((run) => !this.over.has(run)))
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
  }

  close(): void {
    for (const off of this.stop) off();
  }
}

/** In the order they ended. */
export async function finishedRuns(
  { dataSource, entities }: TestEngine,
  ended: readonly Ended[],
): Promise<FinishedRun[]> {
  const ids = ended.map(({ jobRunId }) => jobRunId);
  const rows = await dataSource.getRepository(entities.JobRun).findBy({ id: In(ids) });
  const byId = new Map(rows.map((run) => [run.id, run]));
  return ended.flatMap(({ jobRunId, templateCode, outcome, entry }) => {
    const run = byId.get(jobRunId);
    return run ? [{ code: templateCode, outcome, entry, run }] : [];
  });
}
