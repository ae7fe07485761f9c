import type { OutcomeKind } from './outcome.js';

/** What a run's end is called among the events, by its outcome. */
const ENDS = {
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

export type EndEvent = (typeof ENDS)[OutcomeKind];
/** Told out of another event, to those who listen. */
export type DerivedEvent = EndEvent | 'engine.cycle';

interface Derivation {
  source: 'run.finished' | 'engine.pass';
  /** Not there: always. */
  fits?: (payload: unknown) => boolean;
}

const DERIVATIONS: ReadonlyMap<string, Derivation> = new Map<string, Derivation>([
  ['engine.cycle', { source: 'engine.pass' }],
  ...Object.values(ENDS).map((event): [string, Derivation] => [
    event,
    {
      source: 'run.finished',
      fits: (payload) => ENDS[(payload as { outcome: OutcomeKind }).outcome] === event,
    },
  ]),
]);

export const derived = (event: string): Derivation | undefined => DERIVATIONS.get(event);
