import type { RunJobs } from '../../lifecycle/run/run.js';
import type { ExtensionPoints } from '../../lifecycle/extension-points.js';
import type { JobEvents } from '../../job/events.js';
import type { Settings } from '../../options/settings.js';
import type { QueueDepth } from './queue-depth.sql.js';

/** What of an engine is measured. */
export interface Measured {
  events: JobEvents;
  extensions: ExtensionPoints;
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
