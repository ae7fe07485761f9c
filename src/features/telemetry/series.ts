import type { MetricAttributes } from '../../model/metrics.js';

const OTHER = '_OTHER';
/** Template codes and classes of errors come from outside: beyond so many they are one. */
const MOST_NAMES = 500;
/** And beyond so many sets what more there is has no attributes of its own. */
const MOST_SETS = 5_000;

/** Sets of attributes, each of them one object for good: sinks may keep what they have made of it. */
export class Series {
  private readonly names = new Set<string>();
  private readonly made = new Map<string, MetricAttributes>();

  constructor(
    /** What all of them have. */
    private readonly base: MetricAttributes,
  ) {}

  /** @param key unique among those of this object: one text for the values of `attributes` */
  of(
    key: string,
    attributes: () => Record<string, string | undefined>,
  ): MetricAttributes {
    const known = this.made.get(key);
    if (known) return known;
    if (this.made.size >= MOST_SETS) return this.base;
    const set: Record<string, string> = { ...this.base };
    for (const [name, value] of Object.entries(attributes()))
      if (value !== undefined) set[name] = this.bounded(value);
    this.made.set(key, set);
    return set;
  }

  private bounded(value: string): string {
    if (this.names.has(value)) return value;
    if (this.names.size >= MOST_NAMES) return OTHER;
    this.names.add(value);
    return value;
  }
}
