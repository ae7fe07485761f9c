import { setTimeout as pause } from 'node:timers/promises';

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/** Waits before another attempt, longer from attempt to attempt. @returns false when it is not to be made */
export async function patience(attempt: number, giveUp: AbortSignal): Promise<boolean> {
  const longest = Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS);
  try {
    await pause(longest * (0.5 + Math.random() / 2), undefined, {
      signal: giveUp,
    });
    return true;
  } catch {
    return false;
  }
}
