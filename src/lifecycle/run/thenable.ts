/** Asked by ourselves: to `await` a value whose `then` throws would fail a handler that has succeeded. */
export function isThenable(value: unknown): boolean {
  try {
    return typeof (value as PromiseLike<unknown> | null)?.then === 'function';
  } catch {
    return false;
  }
}
