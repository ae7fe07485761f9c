import { hostname } from 'node:os';
import { EncryptedValue } from 'nestjs-bildad';
import { In, IsNull, Not } from 'typeorm';
import type { TestEngine } from './engines.js';

/** A job that was enqueued, in the queue still or in the history. */
export interface EnqueuedJob {
  code: string;
  /** An EncryptedValue where it is encrypted. */
  context: unknown;
  jobRunIdentifier: string;
  /** Of the engine; where several share a schema, of the first of them that has its handler. */
  engine: string;
  /** `'DONE'` where it has left the queue. */
  status: 'AVAILABLE' | 'RUNNING' | 'QUARANTINED' | 'DONE';
  /** Undefined where it has left the queue: the history does not know. */
  priority: number | undefined;
  /** When it is due; of one that has left the queue, when it was. */
  runAt: Date;
}

/**
 * All there are in a schema, in the order they were enqueued; those that have left the queue first.
 * @param group its engines, at least one
 */
export async function enqueuedJobs(group: readonly TestEngine[]): Promise<EnqueuedJob[]> {
  const { dataSource, entities } = group[0]!;
  const repository = <T extends object>(entity: new () => T) => dataSource.getRepository(entity);
  const [entries, templates] = await Promise.all([
    repository(entities.JobQueueEntry).find({ order: { id: 'ASC' } }),
    repository(entities.JobTemplate).find(),
  ]);
  const runs = await repository(entities.JobRun).find({
    where: {
      retry: 0,
      jobRunIdentifier: Not(In(entries.map(({ jobRunIdentifier }) => jobRunIdentifier))),
    },
    order: { id: 'ASC' },
  });
  const codes = new Map(templates.map(({ id, code }) => [id, code]));
  const engineOf = await servants(group);
  const named = ({ jobTemplateId }: { jobTemplateId: string }) => {
    const code = codes.get(jobTemplateId) ?? '';
    return { code, engine: engineOf(code) };
  };
  return [
    ...runs.map((run) => ({
      ...named(run),
      context: run.jobContext,
      jobRunIdentifier: run.jobRunIdentifier,
      status: 'DONE' as const,
      priority: undefined,
      runAt: run.availableAt,
    })),
    ...entries.map((entry) => ({
      ...named(entry),
      context: entry.jobContext,
      jobRunIdentifier: entry.jobRunIdentifier,
      status: entry.status,
      priority: entry.priority,
      runAt: entry.runAt,
    })),
  ];
}

/** Which engine has the handler of a code. A job does not say by which one it was enqueued. */
async function servants(group: readonly TestEngine[]): Promise<(code: string) => string> {
  const [{ name, dataSource, entities }] = group as [TestEngine];
  if (group.length === 1) return () => name;
  const nodes = await dataSource
    .getRepository(entities.JobNode)
    .findBy({ pid: process.pid, host: hostname(), endedAt: IsNull() });
  return (code) =>
    group.find((engine) =>
      nodes.some(
        ({ engineName, templateCodes }) =>
          engineName === engine.name && templateCodes.includes(code),
      ),
    )?.name ?? name;
}

export const isEncrypted = ({ context }: EnqueuedJob): boolean => context instanceof EncryptedValue;
