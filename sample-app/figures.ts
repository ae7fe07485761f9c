import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { JobRun, type JobQueueEntry } from 'nestjs-bildad';
import { Repository, type SelectQueryBuilder } from 'typeorm';
import type { MainJobResult } from './main-job.js';

/** The last line of `--once`. */
export interface Figures {
  jobs: number;
  runs: { succeeded: number; failed: number };
  retries: number;
  killed: number;
  refused: number;
  prioritiesRespected: boolean;
  filesIndexed: number;
  bytes: number;
  jobsPerSecond: number;
  waitP50Ms: number;
  waitP99Ms: number;
  elapsedMs: number;
}

/** Where the jobs of one priority stood, when they were enqueued and when they were started. */
export interface PriorityRow {
  priority: number;
  jobs: number;
  enqueued: { first: number; last: number };
  started: { first: number; last: number };
}

export interface KilledRun {
  templateCode: string;
  reason: string;
  ms: number;
}

/** Bildad's entities are ordinary entities: every figure is a query over the runs of this scan's jobs. */
@Injectable()
export class FiguresService {
  constructor(@InjectRepository(JobRun) private readonly runs: Repository<JobRun>) {}

  async figures(result: MainJobResult, priorities: PriorityRow[]): Promise<Figures> {
    const { jobs, report, elapsedMs } = result;
    const sums = await this.sums(jobs);
    return {
      jobs: jobs.length,
      runs: { succeeded: sums.succeeded, failed: sums.failed },
      retries: sums.retries,
      killed: sums.killed,
      refused: result.refusal ? 1 : 0,
      prioritiesRespected: respected(priorities),
      filesIndexed: report.files.text + report.files.binary,
      bytes: report.bytes,
      jobsPerSecond: rounded(jobs.length / (elapsedMs / 1000)),
      waitP50Ms: rounded(sums.waitP50Ms),
      waitP99Ms: rounded(sums.waitP99Ms),
      elapsedMs: Math.round(elapsedMs),
    };
  }

  /** By order of first runs: run numbers are given in the order of starting. */
  async priorities(jobs: readonly JobQueueEntry[]): Promise<PriorityRow[]> {
    const firstRuns = await this.of(jobs)
      .andWhere('run.retry = 0')
      .orderBy('run.id')
      .select('run.jobQueueEntryId', 'id')
      .getRawMany<{ id: string }>();
    const started = new Map(firstRuns.map(({ id }, index) => [id, index + 1]));
    const rows = new Map<number, PriorityRow>();
    for (const [index, { id, priority }] of jobs.entries()) {
      const row = rows.get(priority) ?? emptyRow(priority);
      rows.set(priority, row);
      row.jobs++;
      widen(row.enqueued, index + 1);
      widen(row.started, started.get(id)!);
    }
    return [...rows.values()].toSorted((a, b) => a.priority - b.priority);
  }

  killed(jobs: readonly JobQueueEntry[]): Promise<KilledRun[]> {
    return this.of(jobs)
      .andWhere("run.reason = 'Timeout'")
      .innerJoin('JobTemplate', 'template', 'template.id = run.jobTemplateId')
      .select('template.code', 'templateCode')
      .addSelect('run.reason', 'reason')
      .addSelect('extract(epoch FROM run.endedAt - run.startedAt)::float8 * 1000', 'ms')
      .getRawMany();
  }

  private async sums(jobs: readonly JobQueueEntry[]) {
    const wait = 'extract(epoch FROM run.startedAt - run.availableAt)::float8 * 1000';
    const percentile = (p: number) => `percentile_cont(${p}) WITHIN GROUP (ORDER BY ${wait})`;
    const row = await this.of(jobs)
      .select("count(*) FILTER (WHERE run.result = 'SUCCEEDED')::int", 'succeeded')
      .addSelect("count(*) FILTER (WHERE run.result = 'FAILED')::int", 'failed')
      .addSelect('count(*) FILTER (WHERE run.retry > 0)::int', 'retries')
      .addSelect("count(*) FILTER (WHERE run.reason = 'Timeout')::int", 'killed')
      .addSelect(percentile(0.5), 'waitP50Ms')
      .addSelect(percentile(0.99), 'waitP99Ms')
      .getRawOne<{
        succeeded: number;
        failed: number;
        retries: number;
        killed: number;
        waitP50Ms: number;
        waitP99Ms: number;
      }>();
    return row!;
  }

  /** By identifier, for that is what the runs are indexed by. */
  private of(jobs: readonly JobQueueEntry[]): SelectQueryBuilder<JobRun> {
    return this.runs.createQueryBuilder('run').where('run.jobRunIdentifier = ANY (:identifiers)', {
      identifiers: jobs.map(({ jobRunIdentifier }) => jobRunIdentifier),
    });
  }
}

/** True when there was something to compare, and nothing started before what goes first. */
function respected(rows: readonly PriorityRow[]): boolean {
  return (
    rows.length > 1 &&
    rows.every(({ started }, index) => index === 0 || rows[index - 1]!.started.last < started.first)
  );
}

function emptyRow(priority: number): PriorityRow {
  return {
    priority,
    jobs: 0,
    enqueued: { first: Infinity, last: 0 },
    started: { first: Infinity, last: 0 },
  };
}

function widen(range: { first: number; last: number }, to: number): void {
  range.first = Math.min(range.first, to);
  range.last = Math.max(range.last, to);
}

const rounded = (value: number) => Math.round(value * 10) / 10;
