import { BildadJob, type JobExecution, type JobHandler } from 'nestjs-bildad';
import { betweenFiles } from './between-files.js';
import { gate, type Gate } from './gate.js';

/** Does what its context says; counts its runs. */
@BildadJob({ code: 'SIMPLE', maxRetries: 3 })
export class SimpleJob implements JobHandler<{ fail?: string; say?: unknown }> {
  static runs = 0;

  runJob({ fail, say }: { fail?: string; say?: unknown }): unknown {
    SimpleJob.runs++;
    if (fail) throw new Error(fail);
    return say;
  }
}

/** Waits until the test lets it go on, or until it is aborted. `GatedJob.arrivals` are its runs in order. */
@BildadJob({ code: 'GATED', maxRetries: 3, timeout: '1h' })
export class GatedJob implements JobHandler<{ name?: string; deaf?: boolean }> {
  static arrivals: Arrival[] = [];
  private static waiting: ((arrival: Arrival) => void)[] = [];

  static forget(): void {
    GatedJob.arrivals = [];
    GatedJob.waiting = [];
  }

  /** The next run to start; ask for it before what starts it, or after. */
  static async arrival(): Promise<Arrival> {
    return GatedJob.arrivals.shift() ?? new Promise((resolve) => GatedJob.waiting.push(resolve));
  }

  runJob(context: { name?: string; deaf?: boolean }, job: JobExecution): Promise<unknown> {
    const door = gate<unknown>();
    const arrival = { context, job, door };
    const taker = GatedJob.waiting.shift();
    if (taker) taker(arrival);
    else GatedJob.arrivals.push(arrival);
    if (context.deaf) return door.opened;
    return new Promise((resolve, reject) => {
      void door.opened.then(resolve);
      job.signal.addEventListener('abort', () => reject(job.signal.reason as Error));
    });
  }
}

betweenFiles.push(() => GatedJob.forget());

export interface Arrival {
  context: { name?: string; deaf?: boolean };
  job: JobExecution;
  /** Opening it lets the handler return that value. */
  door: Gate<unknown>;
}
