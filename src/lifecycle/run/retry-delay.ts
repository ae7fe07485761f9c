import { setTimeout as pause } from 'node:timers/promises';

const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 1_000;

/** Waits before another attempt, longer from attempt to attempt. @returns false when the signal aborts meanwhile */
export async function waitBeforeRetry(attempt: number, giveUp: AbortSignal): Promise<boolean> {
  const delayMs = Math.min(FIRST_DELAY_MS * 2 ** attempt, MAX_DELAY_MS);
  try {
    await pause(delayMs * (0.5 + Math.random() / 2), undefined, { signal: giveUp });
    return true;
  } catch {
    return false;
  }
}
