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
export type HostCommand =
  /** `nodeId`: the node that claimed the run. */
  | { command: 'run'; run: ClaimedRun; nodeId: string }
  | { command: 'stop'; reason: StopReason }
  | { command: 'fence'; why: string }
  | { command: 'close' };

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
export const ALIVE_INTERVAL_MS = 1_000;

/** A message of a host to its node. */
export type HostMessage =
  /** `codes`: the templates that it has isolated handlers for. */
  | { type: 'ready'; codes: string[] }
  | { type: 'notReady'; error: PlainError }
  | { type: 'started'; jobRunId: string }
  | { type: 'progress'; jobRunId: string; fraction: number; message?: string }
  | {
      type: 'log';
      jobRunId: string;
      level: LogLevel;
      message: string;
    }
  /** Without `chunk`: it could not be sent. */
  | { type: 'stream'; jobRunId: string; chunk?: JsonValue }
  /** The handler recorded its success in a transaction that is not committed yet. */
  | { type: 'written'; jobRunId: string; output: string | null }
  | { type: 'ended'; end: HostedEnd }
  /** The event loop is alive: sent once a second while a job runs. */
  | { type: 'alive'; heapBytes: number }
  /**
   * An uncaught error that this run caused; null: unknown cause. The host must not be used again.
   */
  | { type: 'strayError'; jobRunId: string | null; error: PlainError };

const OURS = 'nestjs-bildad';

/** Wraps a message, because the app's own code may send messages through the same channel. */
export const envelope = (message: HostMessage) => ({ [OURS]: message });

/** A message listener that passes on wrapped messages only. */
export const unwrap =
  (onMessage: (message: HostMessage) => void) =>
  (message: unknown): void => {
    if (typeof message === 'object' && message !== null && OURS in message)
      onMessage(message[OURS] as HostMessage);
  };

/** The `application_name` of a run's own connections: at most 61 characters. */
export const sessionName = (schema: string, jobRunId: string) => `${schema}#${jobRunId}`;

/** A node's connection to a thread or process that hosts jobs. */
export interface HostLink {
  readonly kind: HostKind;
  /** Thread id or pid. */
  readonly id: number;
  /** Resolves when it has ended, with the reason. */
  readonly exited: Promise<string>;
  send(command: HostCommand): void;
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
  onMessage: (message: HostMessage) => void,
) => HostLink;
