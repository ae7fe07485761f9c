import type { ClaimedRun } from '../job/run-facts.js';
import type { EntryFate } from '../job/events.js';
import type { LogLevel, HostKind } from '../job/job-handler.js';
import type { JsonValue } from '../job/json.js';
import type { Outcome } from '../job/outcome.js';
import type { PlainError } from '../job/plain-error.js';
import type { StopReason } from '../lifecycle/run/job-process.js';

/** The settings of a host. */
export interface HostSetup {
  /** URL of the file that exports the app's module, and the name of the export. */
  moduleUrl: string;
  exportName: string;
  /** The engine of that module. */
  schema: string;
  engineName: string;
  /** Maximum number of connections of each of its pools. */
  connections: number;
}

/** A message of a node to a host. */
export type HostOrder =
  /** `nodeId`: the node that claimed the run. */
  | { order: 'run'; run: ClaimedRun; nodeId: string }
  | { order: 'stop'; reason: StopReason }
  | { order: 'fence'; why: string }
  | { order: 'close' };

/** The outcome of a handler as data. `output`: JSON text, null for undefined. */
export type HostedEnd = (
  | { kind: 'completed'; output: string | null }
  | { kind: 'failed' | 'failedForGood' | 'invalidContext'; error: PlainError }
  | Extract<Outcome, { kind: 'snoozed' | 'cancelled' }>
) & {
  /** The outcome that the handler's own transaction wrote, as in `JobProcess.written`. */
  written?: { output: string | null; fate?: EntryFate | null };
};

/** Interval of `turn` messages. */
export const TURN_MS = 1_000;

/** A message of a host to its node. */
export type HostNews =
  /** `codes`: the templates that it has isolated handlers for. */
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
  /** Without `chunk`: it could not be sent. */
  | { news: 'stream'; jobRunId: string; chunk?: JsonValue }
  /** The handler recorded its success in a transaction that is not committed yet. */
  | { news: 'written'; jobRunId: string; output: string | null }
  | { news: 'ended'; end: HostedEnd }
  /** The event loop is alive: sent once a second while a job runs. */
  | { news: 'turn'; heapBytes: number }
  /**
   * An uncaught error that this run caused; null: unknown cause. The host must not be used again.
   */
  | { news: 'stray'; jobRunId: string | null; error: PlainError };

const OURS = 'nestjs-bildad';

/** Wraps a message, because the app's own code may send messages through the same channel. */
export const envelope = (news: HostNews) => ({ [OURS]: news });

/** A message listener that passes on wrapped messages only. */
export const unwrap =
  (hear: (news: HostNews) => void) =>
  (message: unknown): void => {
    if (typeof message === 'object' && message !== null && OURS in message)
      hear(message[OURS] as HostNews);
  };

/** The `application_name` of a run's own connections: at most 61 characters. */
export const sessionName = (schema: string, jobRunId: string) => `${schema}#${jobRunId}`;

/** A node's connection to a thread or process that hosts jobs. */
export interface HostLink {
  readonly kind: HostKind;
  /** Thread id or pid. */
  readonly id: number;
  /** Resolves when it has ended, with the reason. */
  readonly gone: Promise<string>;
  send(order: HostOrder): void;
  /** Works while the host is blocked, too. Null: not known yet. */
  usage(): { cpuMs: number; memoryBytes: number | null } | null;
  /**
   * Ends it by force. Resolves when it has ended: a thread in a native call ends after the call.
   */
  kill(): Promise<void>;
}

export interface HostLimits {
  /** MiB; undefined: Node's own limit. */
  memoryLimit: number | undefined;
}

/** Starts a host. Its messages arrive in the order in which it sent them. */
export type StartHost = (
  setup: HostSetup,
  limits: HostLimits,
  hear: (news: HostNews) => void,
) => HostLink;
