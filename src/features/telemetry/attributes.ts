import type { OutcomeKind } from '../../job/outcome.js';
import { DESTINATION, ERROR, type MetricAttributes } from '../../job/metrics.js';

/** The value of an attribute that has too many different values. */
export const OTHER = '_OTHER';
const MAX_VALUES = 500;
/** Sets beyond this number have no attributes of their own. */
const MAX_SETS = 5_000;

/** The values come from outside, so their number is bounded. */
const BOUNDED: readonly string[] = [DESTINATION, ERROR];

/** Sets of metric attributes. Equal sets are one object for good: sinks use it as a key. */
export class AttributeSets {
  private readonly values = new Map(BOUNDED.map((name) => [name, new Set<string>()]));
  private readonly byGroup = new Map<string, Map<string, MetricAttributes>>();
  private readonly byContent = new Map<string, MetricAttributes>();
  private cached = 0;

  /** @param base the attributes of every set */
  constructor(readonly base: MetricAttributes) {
    this.byContent.set(JSON.stringify(base), base);
  }

  /** @param make called once for each group and code; undefined values are left out */
  of(
    group: string,
    code: string,
    make: (code: string) => Record<string, string | undefined>,
  ): MetricAttributes {
    let sets = this.byGroup.get(group);
    const known = sets?.get(code);
    if (known) return known;
    const set = this.shared(make(code));
    if (this.cached >= MAX_SETS) return set;
    if (!sets) this.byGroup.set(group, (sets = new Map()));
    sets.set(code, set);
    this.cached++;
    return set;
  }

  private shared(attributes: Record<string, string | undefined>): MetricAttributes {
    const set: Record<string, string> = { ...this.base };
    for (const [name, value] of Object.entries(attributes))
      if (value !== undefined) set[name] = this.bounded(name, value);
    const content = JSON.stringify(set);
    const same = this.byContent.get(content);
    if (same) return same;
    if (this.byContent.size >= MAX_SETS) return this.base;
    this.byContent.set(content, set);
    return set;
  }

  private bounded(name: string, value: string): string {
    const values = this.values.get(name);
    if (!values || values.has(value) || value === OTHER) return value;
    if (values.size >= MAX_VALUES) return OTHER;
    values.add(value);
    return value;
  }
}

/** The class of a thrown value. Never throws. */
export function errorType(error: unknown): string {
  try {
    const { name, code } = error as { name?: unknown; code?: unknown };
    if (typeof name === 'string' && name) return name.slice(0, 100);
    if (typeof code === 'string' && code) return code.slice(0, 100);
  } catch {
    // A getter that throws.
  }
  return typeof error;
}

/** Outcomes that need no attention: the run succeeded, was postponed, or was ended on purpose. */
const NO_FAULT: ReadonlySet<OutcomeKind> = new Set([
  'completed',
  'snoozed',
  'cancelled',
  'interrupted',
  'stopped',
  'missed',
]);

/** The name of an outcome that is a fault without an error; undefined: it is no fault. */
export const faultOf = (outcome: OutcomeKind): OutcomeKind | undefined =>
  NO_FAULT.has(outcome) ? undefined : outcome;
