/** The one place where a listener is called. */
export const callListener = (
  instance: object,
  methodName: string,
  payload: unknown,
): unknown =>
  (instance as Record<string, (payload: unknown) => unknown>)[methodName]!(
    payload,
  );
