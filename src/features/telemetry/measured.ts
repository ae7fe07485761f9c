import type { RunJobs } from '../../life/run/run.js';
import type { ClaimJobs } from '../../life/claim/claim.js';
import type { Seams } from '../../life/seams.js';
import type { JobEvents } from '../../model/events.js';
import type { Settings } from '../../model/settings.js';
import type { QueueDepth } from '../../store/depth.store.js';

/** What of an engine is measured. */
export interface Measured {
  events: JobEvents;
  seams: Seams;
  claims: ClaimJobs;
  runs: RunJobs;
  processes: {
    all(): readonly { readonly run: { readonly templateCode: string } }[];
  };
  settings: Settings;
  /** What it is called, among all engines of the process. */
  engine: string;
  /** Inside a host of isolated jobs, where jobs are enqueued, and what runs is counted by its node. */
  hosted: boolean;
  /** What is queued, as known lately. Never rejects. */
  depths: () => Promise<readonly QueueDepth[]>;
}
