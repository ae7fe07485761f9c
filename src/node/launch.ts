import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import { JobNotAvailableError } from '../job/errors.js';
import type { NodeState } from '../job/node-state.js';
import type { Claim } from '../lifecycle/claim/claim-rows.js';
import type { JobRun } from '../database/entities/index.js';

/** What became of one job in a pass. */
export type JobOutcome = { ok: true; jobRun: JobRun } | { ok: false; error: unknown };

export interface Launch {
  claim: Claim;
  /** Why its handler was not started. */
  refused?: { error: unknown };
}

export const outcomeOf = ({ claim, refused }: Launch): JobOutcome =>
  refused ? { ok: false, error: refused.error } : { ok: true, jobRun: claim.jobRun() };

/** The answer to a claim may come when the node is lost to others, or stops. @throws JobNotAvailableError */
export async function checkMine(
  { claimed }: Claim,
  claimant: string,
  node: NodeState,
  claims: ClaimJobs,
): Promise<void> {
  if (node.id === claimant && node.accepting) return;
  await claims.release([claimed], claimant);
  throw new JobNotAvailableError(
    claimed.jobRunIdentifier,
    'this node was stopped, or lost, while it was claimed',
  );
}
