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
  /** What it may take of a quick run, on a busy machine with fewer rounds; 0: it has no part in one. */
  quickSeconds: number;
  mostRounds?: number;
  columns(options: Options): Column[];
  /** Ids, in the order in which a round runs them. */
  contenders(options: Options): string[];
  run(stages: Stages, contender: Contender, options: Options): Promise<Sample>;
}
