import { IsInt, Max, Min } from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';

export class RunawayContext {
  /** How long it would run without a kill. */
  @IsInt()
  @Min(0)
  @Max(600_000)
  milliseconds!: number;
}

/**
 * It computes without a pause, and so never hears of `job.signal`. It runs in a thread of its own, which is ended when
 * the grace period after its timeout is over: the run is FAILED "Timeout", and the app was never held up.
 */
@BildadJob({
  code: 'SAMPLE_RUNAWAY',
  name: 'Run away',
  context: RunawayContext,
  isolation: 'thread',
  timeout: '500ms',
  maxRetries: 0,
})
export class RunawayJob implements JobHandler<RunawayContext, void> {
  runJob({ milliseconds }: RunawayContext): void {
    const end = performance.now() + milliseconds;
    while (performance.now() < end);
  }
}
