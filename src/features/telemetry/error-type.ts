/** The class of what was thrown. Never throws. */
export function errorType(error: unknown): string {
  try {
    const { name, code } = error as { name?: unknown; code?: unknown };
    if (typeof name === 'string' && name) return name.slice(0, 100);
    if (typeof code === 'string' && code) return code.slice(0, 100);
  } catch {
    // A getter of somebody's.
  }
  return typeof error;
}
