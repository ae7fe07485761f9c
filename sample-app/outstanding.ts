import { setTimeout as pause } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { JobEvents, JobQueueEntry } from 'nestjs-bildad';
import { Repository } from 'typeorm';

const LOOK_MS = 1_000;

/**
 * Waits for many jobs. Events report the jobs that run in this process, which are all jobs unless
 * other nodes share the database; a regular check of the queue finds the rest.
 */
@Injectable()
export class Outstanding {
  constructor(
    private readonly events: JobEvents,
    @InjectRepository(JobQueueEntry)
    private readonly queue: Repository<JobQueueEntry>,
  ) {}

  /** Resolves when none of the jobs is in the queue any more. */
  async settle(
    jobs: readonly JobQueueEntry[],
    onProgress: (jobsOver: number) => void,
  ): Promise<void> {
    const open = new Set(jobs.map(({ id }) => id));
    const byIdentifier = new Map(jobs.map(({ jobRunIdentifier, id }) => [jobRunIdentifier, id]));
    const over = new AbortController();
    const close = (id: string | undefined) => {
      if (id === undefined || !open.delete(id)) return;
      onProgress(jobs.length - open.size);
      if (open.size === 0) over.abort();
    };
    const off = this.events.on('run.finished', ({ jobRunIdentifier, entry }) => {
      if (entry === 'removed') close(byIdentifier.get(jobRunIdentifier));
    });
    try {
      for (;;) {
        const queued = await this.stillQueued(open);
        for (const id of open) if (!queued.has(id)) close(id);
        if (open.size === 0) return;
        await pause(LOOK_MS, undefined, { signal: over.signal }).catch(() => undefined);
      }
    } finally {
      off();
    }
  }

  private async stillQueued(ids: Set<string>): Promise<Set<string>> {
    const entries = await this.queue
      .createQueryBuilder('entry')
      .select('entry.id')
      .where('entry.id = ANY (:ids)', { ids: [...ids] })
      .getMany();
    return new Set(entries.map(({ id }) => id));
  }
}
