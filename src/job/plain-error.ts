/** Anything thrown, as plain data that can go from one thread or process to another. */
export type PlainError =
  | {
      name: string;
      message: string;
      stack?: string;
      /** Its own fields, as JSON text. */
      fields: string;
      cause?: PlainError;
    }
  /** What was thrown was no error: its JSON text, null for undefined. */
  | { thrown: string | null };

/** An error that looks like the one it was made from; only its class is lost. */
export function revived(plain: PlainError): unknown {
  if ('thrown' in plain)
    return plain.thrown === null ? undefined : (JSON.parse(plain.thrown) as unknown);
  const { name, message, stack, fields, cause } = plain;
  const error = cause ? new Error(message, { cause: revived(cause) }) : new Error(message);
  const put = (key: string, value: unknown, enumerable: boolean) =>
    Object.defineProperty(error, key, {
      value,
      enumerable,
      configurable: true,
      writable: true,
    });
  put('name', name, false);
  put('stack', stack ?? `${name}: ${message}`, false);
  for (const [key, value] of Object.entries(JSON.parse(fields) as Record<string, unknown>))
    put(key, value, true);
  return error;
}
