import type { Contender } from '../contenders.js';
import type { Options } from '../options.js';
import type { Stages } from '../stage.js';

/** What one run of one contender came to; NaN where there is nothing to measure. */
export type Sample = Record<string, number>;

export interface Column {
  /** Of the sample. */
  key: string;
  title: string;
  digits?: number;
}

export interface Scenario {
  name: string;
  title: string;
  /** How it is measured, below the table. */
  notes: string;
  /** Takes minutes and makes no ratio: not in a quick run. */
  onlyInFull?: boolean;
  columns(options: Options): Column[];
  /** Ids, in the order in which a round runs them. */
  contenders(options: Options): string[];
  run(stages: Stages, contender: Contender, options: Options): Promise<Sample>;
}
