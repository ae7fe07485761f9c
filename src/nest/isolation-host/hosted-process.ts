import type { Outcome } from '../../job/outcome.js';
import { JobProcess } from '../../lifecycle/run/job-process.js';

/** A run in its host. What the handler did is what is told; what it means after a stop, its node decides. */
export class HostedProcess extends JobProcess {
  done: Outcome | undefined;

  override settle(outcome: Outcome): void {
    this.done = outcome;
    super.settle(outcome);
  }
}
