import { Presets, SingleBar } from 'cli-progress';

/** A bar on a terminal; a single line where there is none. On stderr: stdout is for the result. */
export class Progress {
  private bar: SingleBar | undefined;

  start(jobs: number): void {
    if (!process.stderr.isTTY) {
      process.stderr.write(`running ${jobs} jobs ...\n`);
      return;
    }
    this.bar = new SingleBar(
      {
        format: '{bar} {percentage}% | {value}/{total} jobs | {duration_formatted}',
        clearOnComplete: true,
        // Log lines may come in between.
        forceRedraw: true,
      },
      Presets.shades_classic,
    );
    this.bar.start(jobs, 0);
  }

  update(jobsOver: number): void {
    this.bar?.update(jobsOver);
  }

  stop(): void {
    this.bar?.stop();
  }
}
