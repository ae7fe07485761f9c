import { BildadJob, type JobExecution, type JobHandler } from 'nestjs-bildad';
import { fileResets } from './file-resets.js';
import { gate, type Gate } from './gate.js';

/** Fails or returns as its context says, and counts its runs. */
@BildadJob({ code: 'SIMPLE', maxRetries: 3 })
export class SimpleJob implements JobHandler<{ fail?: string; say?: unknown }> {
  static runs = 0;

  runJob({ fail, say }: { fail?: string; say?: unknown }): unknown {
    SimpleJob.runs++;
    if (fail) throw new Error(fail);
    return say;
  }
}

/**
 * Waits until the test opens its gate, or until it is aborted. `GatedJob.arrivals` has its runs
 * in order.
 */
@BildadJob({ code: 'GATED', maxRetries: 3, timeout: '1h' })
export class GatedJob implements JobHandler<{ name?: string; ignoresAbort?: boolean }> {
  static arrivals: Arrival[] = [];
  private static waiting: ((arrival: Arrival) => void)[] = [];

  static reset(): void {
    GatedJob.arrivals = [];
    GatedJob.waiting = [];
  }

  /** The next run that starts. Call it before or after the run starts. */
  static async arrival(): Promise<Arrival> {
    return GatedJob.arrivals.shift() ?? new Promise((resolve) => GatedJob.waiting.push(resolve));
  }

  runJob(context: { name?: string; ignoresAbort?: boolean }, job: JobExecution): Promise<unknown> {
    const door = gate<unknown>();
    const arrival = { context, job, door };
    const waiter = GatedJob.waiting.shift();
    if (waiter) waiter(arrival);
    else GatedJob.arrivals.push(arrival);
    if (context.ignoresAbort) return door.opened;
    return new Promise((resolve, reject) => {
      void door.opened.then(resolve);
      job.signal.addEventListener('abort', () => reject(job.signal.reason as Error));
    });
  }
}

fileResets.push(() => GatedJob.reset());

export interface Arrival {
  context: { name?: string; ignoresAbort?: boolean };
  job: JobExecution;
  /** Opens the gate; the handler returns the value. */
  door: Gate<unknown>;
}
