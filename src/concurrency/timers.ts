/** Longer timeouts fire at once in Node. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** @returns how to stop it */
export function once(ms: number, work: () => void, { keepsAlive = true } = {}): () => void {
  const timeout = setTimeout(work, Math.min(ms, LONGEST_TIMER_MS));
  if (!keepsAlive) timeout.unref();
  return () => clearTimeout(timeout);
}

/** Resolves with the work, or when the time is up. Never rejects. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let cancel = () => {};
  const deadline = new Promise<void>((resolve) => {
    cancel = once(ms, resolve);
  });
  await Promise.race([work.catch(() => undefined), deadline]);
  cancel();
}

/** @throws the signal's reason, when it aborts before the work is done */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  signal.throwIfAborted();
  let leave = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    leave = () => reject(signal.reason as Error);
    signal.addEventListener('abort', leave, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}
