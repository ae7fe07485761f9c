import type { Duration } from './duration.js';

/** A backoff that can be stored: upstream's behaviour, a fixed pause, or a growing one. */
export type BackoffData =
  | 'none'
  | Duration
  | { type: 'fixed'; delay: Duration }
  | {
      type: 'exponential';
      /** Before the first retry; doubled for each further one. Default 1 s. */
      delay?: Duration;
      /** Default 1 h. */
      maxDelay?: Duration;
      /** Share of the delay that is random, 0 to 1. Default 0.5. */
      jitter?: number;
    };

/** Called after failed run number `retry` (0 for the first) with what it threw; returns the pause. */
export type BackoffFunction = (retry: number, error: unknown) => Duration;

export type Backoff = BackoffData | BackoffFunction;
