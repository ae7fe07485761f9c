import type { Violation } from './checker.js';
import type { Timeline } from './timeline.js';

/** I11: a term of the guard has one holder, terms grow by one, and nobody takes what is another's. */
export function checkGuard({ history }: Timeline): Violation[] {
  const found: Violation[] = [];
  const holders = new Map<number, string | null>();
  let last = 0;
  for (const { term, holder, wasFree } of history.guard) {
    const say = (what: string) => found.push({ invariant: 'I11', what });
    if (term !== last) {
      if (!wasFree) say(`${holder} took term ${term} while it was another's`);
      if (last !== 0 && term !== last + 1) say(`term ${term} came after term ${last}`);
    }
    if (holders.has(term) && holders.get(term) !== holder)
      say(`term ${term} was held by ${holders.get(term)} and by ${holder}`);
    holders.set(term, holder);
    last = term;
  }
  return found;
}
