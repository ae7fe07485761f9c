import { DESTINATION, ERROR, type MetricAttributes } from '../../job/metrics.js';

/** What all are called that are not told apart. */
export const OTHER = '_OTHER';
/** Come from outside: beyond so many values of each they are one. */
const BOUNDED = [DESTINATION, ERROR];
const MOST_NAMES = 500;
/** And beyond so many sets what more there is has no attributes of its own. */
const MOST_SETS = 5_000;

/** Sets of attributes; equal ones are one object for good: sinks add up by it, and may keep what they have made of it. */
export class Series {
  private readonly names = new Map(BOUNDED.map((name) => [name, new Set<string>()]));
  private readonly byKey = new Map<string, MetricAttributes>();
  private readonly byValues = new Map<string, MetricAttributes>();

  constructor(
    /** What all of them have. */
    private readonly base: MetricAttributes,
  ) {
    this.byValues.set(JSON.stringify(base), base);
  }

  /** @param key unique among those of this object: one text for the values of `attributes` */
  of(key: string, attributes: () => Record<string, string | undefined>): MetricAttributes {
    const known = this.byKey.get(key);
    if (known) return known;
    const set = this.one(attributes());
    if (this.byKey.size < MOST_SETS) this.byKey.set(key, set);
    return set;
  }

  private one(attributes: Record<string, string | undefined>): MetricAttributes {
    const set: Record<string, string> = { ...this.base };
    for (const [name, value] of Object.entries(attributes))
      if (value !== undefined) set[name] = this.bounded(name, value);
    const values = JSON.stringify(set);
    const same = this.byValues.get(values);
    if (same) return same;
    if (this.byValues.size >= MOST_SETS) return this.base;
    this.byValues.set(values, set);
    return set;
  }

  private bounded(name: string, value: string): string {
    const names = this.names.get(name);
    if (!names || names.has(value) || value === OTHER) return value;
    if (names.size >= MOST_NAMES) return OTHER;
    names.add(value);
    return value;
  }
}
