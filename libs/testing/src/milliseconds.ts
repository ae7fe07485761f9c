import { BildadConfigError, SnoozeError, type Duration } from 'nestjs-bildad';

/** @throws BildadConfigError */
export function toMilliseconds(duration: Duration): number {
  try {
    // What reads durations in the package itself.
    return new SnoozeError(duration).delayMs;
  } catch {
    throw new BildadConfigError('by', "a duration: ms, or '1h'", duration);
  }
}
