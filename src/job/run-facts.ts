import type { BackoffData } from './backoff.js';
import type { JsonSchema, JsonValue } from './json.js';

/** The facts of a run and its queue entry that decide the verdict. */
export interface RunFacts {
  jobRunId: string;
  jobQueueEntryId: string;
  jobRunIdentifier: string;
  templateCode: string;
  /** 0 for the first run of the entry. */
  retry: number;
  /** From the entry; 0 when the entry is deleted. */
  maxRetries: number;
  /** Earlier runs of the entry that did not cost a retry. */
  uncountedRuns: number;
  /** The backoff the entry was enqueued with, else its template's; null: the module's default. */
  backoff: BackoffData | null;
}

/** A run that this node has claimed and may launch. */
export interface ClaimedRun extends RunFacts {
  jobTemplateId: string;
  jobContext: JsonValue;
  /** A schema that an operator gave the template; it applies in addition to the handler's class. */
  operatorSchema: JsonSchema | null;
  timeoutMs: number;
  /** By the database's clock. */
  timeoutAtMs: number;
}

/** Unique among all runs. */
export const processName = ({
  jobRunIdentifier,
  retry,
}: Pick<RunFacts, 'jobRunIdentifier' | 'retry'>) => `${jobRunIdentifier}#${retry}`;
