import type { OutcomeKind } from './outcome.js';

/** The event of an ended run, by its outcome. */
const EVENT_OF_OUTCOME = {
  completed: 'run.succeeded',
  failed: 'run.failed',
  failedForGood: 'run.failed',
  invalidContext: 'run.failed',
  timedOut: 'run.timedOut',
  killed: 'run.killed',
  expired: 'run.expired',
  crashed: 'run.crashed',
  hostDied: 'run.crashed',
  stopped: 'run.stopped',
  interrupted: 'run.stopped',
  snoozed: 'run.snoozed',
  cancelled: 'run.cancelled',
  missed: 'run.missed',
} as const satisfies Record<OutcomeKind, string>;

export type EndEvent = (typeof EVENT_OF_OUTCOME)[OutcomeKind];
/** Derived from `run.finished`, for its listeners only. */
export type DerivedEvent = EndEvent;

const NAMES: ReadonlySet<string> = new Set(Object.values(EVENT_OF_OUTCOME));

export const isDerived = (event: string): event is DerivedEvent => NAMES.has(event);

export const derivedFrom = (outcome: OutcomeKind): DerivedEvent => EVENT_OF_OUTCOME[outcome];
