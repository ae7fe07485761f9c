import { setTimeout as pause } from 'node:timers/promises';
import { IsInt, Max, Min } from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';

const STEP_MS = 50;

export class RunawayContext {
  /** How long it goes on, whatever it is told. */
  @IsInt()
  @Min(0)
  @Max(10_000)
  milliseconds!: number;
}

/**
 * What not to copy: it never looks at `job.signal`. At its timeout the signal aborts; after the grace
 * period the run ends as FAILED "Timeout" without the handler, and what that still does lands nowhere.
 */
@BildadJob({
  code: 'SAMPLE_RUNAWAY',
  name: 'Run away',
  context: RunawayContext,
  timeout: '500ms',
  maxRetries: 0,
})
export class RunawayJob implements JobHandler<RunawayContext, void> {
  async runJob({ milliseconds }: RunawayContext): Promise<void> {
    const end = performance.now() + milliseconds;
    while (performance.now() < end) await pause(STEP_MS);
  }
}
