import type { ClaimedRun } from '../job/run-facts.js';
import type { EntryFate } from '../job/events.js';
import type { LogLevel } from '../job/job-execution.js';
import type { JsonValue } from '../job/json.js';
import type { Outcome } from '../job/outcome.js';
import type { PlainError } from '../job/plain-error.js';
import type { StopReason } from '../lifecycle/run/job-process.js';

/** What a host is given at its start. */
export interface HostSetup {
  /** URL of the module to boot, and what it exports it as. */
  moduleUrl: string;
  exportName: string;
  /** Which engine of that module. */
  schema: string;
  engineName: string;
  /** Connections that each of its pools may hold. */
  connections: number;
}

/** What a node tells a host. */
export type HostOrder =
  /** `nodeId`: under which the run was claimed. */
  | { order: 'run'; run: ClaimedRun; nodeId: string }
  | { order: 'stop'; reason: StopReason }
  | { order: 'fence'; why: string }
  | { order: 'close' };

/** How a handler ended, as data. `output`: JSON text, null for undefined. */
export type HostedEnd = (
  | { kind: 'completed'; output: string | null }
  | { kind: 'failed' | 'failedForGood' | 'invalidContext'; error: PlainError }
  | Extract<Outcome, { kind: 'snoozed' | 'cancelled' }>
) & {
  /** The end that a transaction of the handler's wrote, as `JobProcess.written` has it. */
  written?: { output: string | null; fate?: EntryFate | null };
};

/** What a host tells its node. */
export const TURN_MS = 1_000;

export type HostNews =
  /** `codes`: the templates it has isolated handlers for. */
  | { news: 'ready'; codes: string[] }
  | { news: 'notReady'; error: PlainError }
  | { news: 'started'; jobRunId: string }
  | { news: 'progress'; jobRunId: string; fraction: number; message?: string }
  | {
      news: 'log';
      jobRunId: string;
      level: LogLevel;
      message: string;
    }
  /** Left out: it could not be sent. */
  | { news: 'stream'; jobRunId: string; chunk?: JsonValue }
  /** Its handler has written that it succeeded, in a transaction that is still to be committed. */
  | { news: 'written'; jobRunId: string; output: string | null }
  | { news: 'ended'; end: HostedEnd }
  /** Its event loop turns: once a second while it runs a job. `heapBytes`: of its JavaScript heap. */
  | { news: 'turn'; heapBytes: number }
  /** Thrown where nobody catches, by what a run started; null: by nobody known. The host is not to be used again. */
  | { news: 'stray'; jobRunId: string | null; error: PlainError };

const OURS = 'nestjs-bildad';

/** What goes over the wire: what the app's own code sends by it is not taken for news. */
export const envelope = (news: HostNews) => ({ [OURS]: news });

/** @returns what hears messages, and tells of what came in an envelope */
export const opening =
  (hear: (news: HostNews) => void) =>
  (message: unknown): void => {
    if (typeof message === 'object' && message !== null && OURS in message)
      hear(message[OURS] as HostNews);
  };

/** What the statements of a run's own connections are known by on the server: at most 61 characters. */
export const sessionName = (schema: string, jobRunId: string) => `${schema}#${jobRunId}`;
