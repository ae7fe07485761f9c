import type { ClaimedRun } from '../model/facts.js';
import { JobRunStatus } from '../model/status.js';
import { asRun } from './columns.js';
import type { JobRun } from './entities/index.js';
import { LONGEST_MS } from './migrations/002-hot-path/claim.js';

export interface Claimer {
  nodeId: string;
  /** Milliseconds until a run that nobody renews counts as lost. */
  leaseMs: number;
}

/** A claimed run, as facts for the engine and as a row for the user. */
export interface Claim {
  claimed: ClaimedRun;
  /** Made when asked for: the engine itself needs none. */
  jobRun(): JobRun;
}

export type ClaimRow = JobRun &
  Pick<
    ClaimedRun,
    | 'templateCode'
    | 'maxRetries'
    | 'uncountedRuns'
    | 'backoff'
    | 'timeoutMs'
    | 'jobContext'
    | 'operatorSchema'
  > & { timeoutAtMs: number };

export function asClaim(row: ClaimRow): Claim {
  const {
    templateCode,
    maxRetries,
    uncountedRuns,
    backoff,
    timeoutMs,
    operatorSchema,
    timeoutAtMs,
    ...run
  } = row;
  const {
    id,
    jobRunIdentifier,
    jobTemplateId,
    jobQueueEntryId,
    retry,
    jobProcessName,
    jobContext,
  } = run;
  return {
    jobRun: () => asRun(run),
    claimed: {
      jobRunId: id,
      jobQueueEntryId,
      jobRunIdentifier,
      jobTemplateId,
      templateCode,
      retry,
      maxRetries,
      uncountedRuns,
      backoff,
      timeoutMs,
      timeoutAtMs,
      jobProcessName,
      jobContext,
      operatorSchema,
      deferred: false,
    },
  };
}

export interface NextRow extends ClaimedRun {
  priority: number;
  dueAtMs: number;
  nowMs: number;
}

/** Its times are of one moment: reading four of them a row was a tenth of a claim's cost on this side. */
export class NextClaim implements Claim {
  readonly claimed: ClaimedRun;

  constructor(
    private readonly row: NextRow,
    private readonly claimer: Claimer,
    deferred: boolean,
  ) {
    row.deferred = deferred;
    row.jobProcessName = `${row.jobRunIdentifier}#${row.retry}`;
    row.timeoutAtMs = row.nowMs + Math.min(row.timeoutMs, LONGEST_MS);
    this.claimed = row;
  }

  jobRun(): JobRun {
    const { claimed, claimer, row } = this;
    const startedAt = new Date(row.nowMs);
    return asRun({
      id: claimed.jobRunId,
      jobTemplateId: claimed.jobTemplateId,
      jobQueueEntryId: claimed.jobQueueEntryId,
      jobRunIdentifier: claimed.jobRunIdentifier,
      retry: claimed.retry,
      jobProcessName: claimed.jobProcessName,
      nodeId: claimer.nodeId,
      status: JobRunStatus.RUNNING,
      result: null,
      reason: null,
      error: null,
      output: null,
      jobContext: claimed.jobContext,
      killRequested: null,
      availableAt: new Date(row.dueAtMs),
      startedAt,
      timeoutAt: new Date(claimed.timeoutAtMs),
      expiresAt: new Date(row.nowMs + claimer.leaseMs),
      endedAt: null,
      insertedAt: startedAt,
      updatedAt: startedAt,
    });
  }
}
