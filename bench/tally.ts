import type { Moment, Payload } from './adapter.js';
import { cpuMs, now } from './clock.js';

/** Where a worker was when it had begun this many jobs. */
export interface Milestone {
  jobs: number;
  at: Moment;
  rss: number;
}

const JOBS_PER_MILESTONE = 1000;
const REPORT_EVERY_MS = 5;

/** Counts the jobs that a worker begins. What it does for a job is little and the same for all contenders. */
export class Tally {
  jobs = 0;
  begin: Moment = 0;
  /** The process's, when its first job began. */
  cpuBefore = 0;
  readonly milestones: Milestone[] = [];
  /** By number of the job, if asked for. */
  readonly arrivals: [n: number, at: Moment][] = [];
  private reporting = false;

  constructor(
    private readonly report: (jobs: number) => void,
    private readonly keepsArrivals: boolean,
  ) {}

  readonly onJob = ({ n }: Payload): void => {
    if (this.jobs++ === 0) this.start();
    if (this.keepsArrivals) this.arrivals.push([n, now()]);
    if (this.jobs % JOBS_PER_MILESTONE === 0) this.mark();
    if (this.reporting) return;
    this.reporting = true;
    setTimeout(() => {
      this.reporting = false;
      this.report(this.jobs);
    }, REPORT_EVERY_MS);
  };

  private start(): void {
    this.begin = now();
    this.cpuBefore = cpuMs();
    this.report(1);
  }

  private mark(): void {
    this.milestones.push({
      jobs: this.jobs,
      at: now(),
      rss: process.memoryUsage.rss(),
    });
  }
}
