import { EncryptedValue } from 'nestjs-bildad';
import { Not, In } from 'typeorm';
import type { TestEngine } from './engines.js';

/** A job that was enqueued, in the queue still or in the history. */
export interface EnqueuedJob {
  code: string;
  /** An EncryptedValue where it is encrypted. */
  context: unknown;
  jobRunIdentifier: string;
  /** Of the engine. */
  engine: string;
  /** `'DONE'` where it has left the queue. */
  status: 'AVAILABLE' | 'RUNNING' | 'QUARANTINED' | 'DONE';
  /** Undefined where it has left the queue: the history does not know. */
  priority: number | undefined;
  /** When it is due; of one that has left the queue, when it was. */
  runAt: Date;
}

/** All there are, in the order they were enqueued; those that have left the queue first. */
export async function enqueuedJobs(engine: TestEngine): Promise<EnqueuedJob[]> {
  const { dataSource, entities, name } = engine;
  const repository = <T extends object>(entity: new () => T) =>
    dataSource.getRepository(entity);
  const [entries, templates] = await Promise.all([
    repository(entities.JobQueueEntry).find({ order: { id: 'ASC' } }),
    repository(entities.JobTemplate).find(),
  ]);
  const runs = await repository(entities.JobRun).find({
    where: {
      retry: 0,
      jobRunIdentifier: Not(
        In(entries.map(({ jobRunIdentifier }) => jobRunIdentifier)),
      ),
    },
    order: { id: 'ASC' },
  });
  const codes = new Map(templates.map(({ id, code }) => [id, code]));
  return [
    ...runs.map((run) => ({
      code: codes.get(run.jobTemplateId) ?? '',
      context: run.jobContext,
      jobRunIdentifier: run.jobRunIdentifier,
      engine: name,
      status: 'DONE' as const,
      priority: undefined,
      runAt: run.availableAt,
    })),
    ...entries.map((entry) => ({
      code: codes.get(entry.jobTemplateId) ?? '',
      context: entry.jobContext,
      jobRunIdentifier: entry.jobRunIdentifier,
      engine: name,
      status: entry.status,
      priority: entry.priority,
      runAt: entry.runAt,
    })),
  ];
}

export const isEncrypted = ({ context }: EnqueuedJob): boolean =>
  context instanceof EncryptedValue;
