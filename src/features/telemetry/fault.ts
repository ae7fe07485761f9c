import type { OutcomeKind } from '../../job/outcome.js';

/** The run did what it was to, or is put off, or was ended by who may: nobody has to look at it. */
const CALM: ReadonlySet<OutcomeKind> = new Set([
  'completed',
  'snoozed',
  'cancelled',
  'interrupted',
  'stopped',
  'missed',
]);

/** What to call an outcome that is a fault, where no error says it; undefined: it is none. */
export const faultOf = (outcome: OutcomeKind): OutcomeKind | undefined =>
  CALM.has(outcome) ? undefined : outcome;
