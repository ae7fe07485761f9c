/** SQLSTATE, or the system's code of a connection error, however deep a driver wrapped it. */
export function databaseCode(error: unknown): string | undefined {
  const { code, driverError } = (error ?? {}) as {
    code?: unknown;
    driverError?: unknown;
  };
  if (typeof code === 'string') return code;
  return driverError === undefined ? undefined : databaseCode(driverError);
}
