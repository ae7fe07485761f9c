import { hostname } from 'node:os';
import { EncryptedValue } from 'nestjs-bildad';
import { In, IsNull, Not } from 'typeorm';
import type { TestEngine } from './engines.js';

/** A job in the queue or in the history. */
export interface EnqueuedJob {
  code: string;
  /** An EncryptedValue if it is encrypted. */
  context: unknown;
  jobRunIdentifier: string;
  /** Name of the engine. If several share a schema: of the first one that has the handler. */
  engine: string;
  /** `'DONE'` when it has left the queue. */
  status: 'AVAILABLE' | 'RUNNING' | 'QUARANTINED' | 'DONE';
  /** Undefined when it has left the queue: the history does not store it. */
  priority: number | undefined;
  /** When it is or was due. */
  runAt: Date;
}

/**
 * All jobs of a schema in the order in which they were enqueued; jobs that have left the queue come first.
 * @param group the engines of the schema, at least one
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

/** Finds the engine that has the handler of a code. A job does not store which engine enqueued it. */
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
