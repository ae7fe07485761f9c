import type { HostKind } from '../job/isolation-mode.js';
import type { HostNews, HostOrder, HostSetup } from './host-messages.js';

/** A thread or process that hosts jobs, as its node sees it. */
export interface HostLink {
  readonly kind: HostKind;
  /** Thread id or pid. */
  readonly id: number;
  /** Resolves when it has ended, with why. */
  readonly gone: Promise<string>;
  send(order: HostOrder): void;
  /** Also while it is blocked. Null: not known yet. */
  usage(): { cpuMs: number; memoryBytes: number | null } | null;
  /** Ends it without asking. Resolves when it has ended: a thread inside a native call ends after it. */
  kill(): Promise<void>;
}

export interface HostLimits {
  /** MiB; undefined: what Node allows. */
  memoryLimit: number | undefined;
}

/** Starts one. News are heard in the order they were sent. */
export type StartHost = (
  setup: HostSetup,
  limits: HostLimits,
  hear: (news: HostNews) => void,
) => HostLink;
