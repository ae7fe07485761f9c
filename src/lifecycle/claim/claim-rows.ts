import { processName, type ClaimedRun } from '../../job/run-facts.js';
import type { JsonValue } from '../../job/json.js';
import { JobRunStatus } from '../../job/status.js';
import { asRun } from '../../database/columns.js';
import type { JobRun } from '../../database/entities/index.js';
import { LONGEST_MS } from '../../database/migrations/baseline/claim-jobs.js';

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
  /** From when it was due, by the database's clock. */
  waitedMs(): number;
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
  const { id, jobRunIdentifier, jobTemplateId, jobQueueEntryId, retry, jobContext } = run;
  return {
    jobRun: () => asRun(run),
    waitedMs: () => Number(run.startedAt) - Number(run.availableAt),
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
      jobContext,
      operatorSchema,
    },
  };
}

/** Entries claimed together that differ in nothing but these texts, in which the n-th value is the n-th entry's. */
export interface ClaimedGroup extends Pick<
  ClaimedRun,
  | 'jobTemplateId'
  | 'templateCode'
  | 'operatorSchema'
  | 'backoff'
  | 'retry'
  | 'maxRetries'
  | 'uncountedRuns'
  | 'timeoutMs'
> {
  priority: number;
  /** Numbers, between commas. */
  runIds: string;
  entryIds: string;
  /** JSON lists. */
  identifiers: string;
  contexts: string;
  /** When they became due: milliseconds since 1970, between commas. */
  duesMs: string;
  nowMs: number;
  /** `duesMs`, taken apart when somebody asks. */
  dues?: string[];
}

/** In the order of their runs. */
export function claimsOf(groups: ClaimedGroup[], claimer: Claimer): NextClaim[] {
  const claims = groups.flatMap((group) => {
    const runIds = group.runIds.split(',');
    const entryIds = group.entryIds.split(',');
    const identifiers = JSON.parse(group.identifiers) as string[];
    const contexts = JSON.parse(group.contexts) as JsonValue[];
    const timeoutAtMs = group.nowMs + Math.min(group.timeoutMs, LONGEST_MS);
    return runIds.map(
      (jobRunId, index) =>
        new NextClaim(group, index, claimer, {
          jobRunId,
          jobQueueEntryId: entryIds[index]!,
          jobRunIdentifier: identifiers[index]!,
          jobTemplateId: group.jobTemplateId,
          templateCode: group.templateCode,
          retry: group.retry,
          maxRetries: group.maxRetries,
          uncountedRuns: group.uncountedRuns,
          backoff: group.backoff,
          jobContext: contexts[index]!,
          operatorSchema: group.operatorSchema,
          timeoutMs: group.timeoutMs,
          timeoutAtMs,
        }),
    );
  });
  // Ids are bigints as text: of two positive ones the longer is the larger.
  return claims.toSorted((one, other) => {
    const a = one.claimed.jobRunId;
    const b = other.claimed.jobRunId;
    return a.length - b.length || (a < b ? -1 : 1);
  });
}

class NextClaim implements Claim {
  constructor(
    private readonly group: ClaimedGroup,
    private readonly index: number,
    private readonly claimer: Claimer,
    readonly claimed: ClaimedRun,
  ) {}

  get priority(): number {
    return this.group.priority;
  }

  waitedMs(): number {
    return this.group.nowMs - this.dueMs;
  }

  private get dueMs(): number {
    const dues = (this.group.dues ??= this.group.duesMs.split(','));
    return Number(dues[this.index]);
  }

  jobRun(): JobRun {
    const { claimed, claimer, group } = this;
    const startedAt = new Date(group.nowMs);
    return asRun({
      id: claimed.jobRunId,
      jobTemplateId: claimed.jobTemplateId,
      jobQueueEntryId: claimed.jobQueueEntryId,
      jobRunIdentifier: claimed.jobRunIdentifier,
      retry: claimed.retry,
      jobProcessName: processName(claimed),
      nodeId: claimer.nodeId,
      status: JobRunStatus.RUNNING,
      result: null,
      outcome: null,
      reason: null,
      error: null,
      output: null,
      jobContext: claimed.jobContext,
      killRequested: null,
      availableAt: new Date(this.dueMs),
      startedAt,
      timeoutAt: new Date(claimed.timeoutAtMs),
      expiresAt: new Date(group.nowMs + claimer.leaseMs),
      endedAt: null,
      insertedAt: startedAt,
      updatedAt: startedAt,
    });
  }
}
