import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import {
  InvalidJobContextError,
  JobEngineService,
  type JobQueueEntry,
  type JobRun,
} from 'nestjs-bildad';
import { DataSource } from 'typeorm';
import { walk, type FoundFile } from './files/walk.js';
import { FlakyJob } from './jobs/flaky.job.js';
import { IndexFileJob } from './jobs/index-file.job.js';
import { ReportJob, type Report } from './jobs/report.job.js';
import { RunawayJob } from './jobs/runaway.job.js';
import { Outstanding } from './outstanding.js';

const URGENT = { priority: 1 };
const URGENT_FILES = 5;

export interface Workload {
  /** Identifies this start of the sample app, its jobs and its rows. */
  scan: string;
  folder: string;
  /** In the order they were enqueued. */
  jobs: JobQueueEntry[];
  /** Identifier of the job that runs away. */
  runaway: string;
  closedFolders: string[];
}

export interface MainJobResult extends Workload {
  report: Report;
  refusal: InvalidJobContextError;
  elapsedMs: number;
}

/** What the sample does, from the first job to the report. */
@Injectable()
export class MainJob {
  constructor(
    private readonly engine: JobEngineService,
    private readonly outstanding: Outstanding,
    @InjectDataSource() private readonly dataSource: DataSource,
  ) {}

  async run(
    folder: string,
    onStart: (jobs: number) => void,
    onProgress: (jobsOver: number) => void,
  ): Promise<MainJobResult> {
    const refusal = await this.refused();
    const begin = performance.now();
    const workload = await this.enqueue(folder);
    const { jobs } = workload;
    onStart(jobs.length + 1);
    await this.engine.runJobEngine();
    await this.outstanding.settle(jobs, onProgress);
    const { entry, run } = await this.report(workload);
    onProgress(jobs.length + 1);
    return {
      ...workload,
      jobs: [...jobs, entry],
      report: run.output as Report,
      refusal,
      elapsedMs: performance.now() - begin,
    };
  }

  /** A bad context does not get into the queue: the caller learns what is wrong with it, at once. */
  private async refused(): Promise<InvalidJobContextError> {
    try {
      await this.engine.enqueueJob('SAMPLE_INDEX_FILE', {
        scan: 'yesterday',
        folder: '',
        path: 42,
      });
    } catch (error) {
      if (error instanceof InvalidJobContextError) return error;
      throw error;
    }
    throw new Error('a bad context was not refused');
  }

  /** All in one transaction: until it commits there is nothing to run, then priority decides, not age. */
  private async enqueue(folder: string): Promise<Workload> {
    const { files, closed } = await walk(folder);
    const scan = randomUUID();
    const urgent = files.splice(-Math.min(URGENT_FILES, files.length >> 1));
    const contextOf = (file: FoundFile) => ({ scan, folder, ...file });
    return this.dataSource.transaction(async (manager) => {
      const runaway = await this.engine.enqueueJob(
        RunawayJob,
        { milliseconds: 600_000 },
        { jobRunIdentifier: `runaway-${scan}`, priority: 3, manager },
      );
      const ordinaryFiles = await this.engine.enqueueJobs(IndexFileJob, files.map(contextOf), {
        manager,
      });
      const urgentFiles = await this.engine.enqueueJobs(IndexFileJob, urgent.map(contextOf), {
        ...URGENT,
        manager,
      });
      const flaky = await this.engine.enqueueJob(
        FlakyJob,
        { failures: 2 },
        { jobRunIdentifier: `flaky-${scan}`, ...URGENT, manager },
      );
      return {
        scan,
        folder,
        jobs: [runaway, ...ordinaryFiles, ...urgentFiles, flaky],
        runaway: runaway.jobRunIdentifier,
        closedFolders: closed,
      };
    });
  }

  private async report({ scan }: Workload): Promise<{ entry: JobQueueEntry; run: JobRun }> {
    const { jobQueueEntry: entry } = await this.engine.enqueueJobAndTriggerEngine(
      ReportJob,
      { scan },
      { jobRunIdentifier: `report-${scan}`, ...URGENT },
    );
    const run = await this.engine.waitForJob(entry.jobRunIdentifier);
    if (run.result !== 'SUCCEEDED') throw new Error(`the report failed: ${run.reason}`);
    return { entry, run };
  }
}
