const ROWS = 5000;
const AT_ONCE = 2;

/**
 * All in one call, as the documentation has it; or, tuned, 5,000 at a time in two calls at once, which is up to twice
 * as fast for all of them.
 */
export async function inParts<T>(
  items: T[],
  tuned: boolean,
  insert: (part: T[]) => Promise<unknown>,
): Promise<void> {
  if (!tuned) {
    await insert(items);
    return;
  }
  let from = 0;
  const next = async () => {
    while (from < items.length) await insert(items.slice(from, (from += ROWS)));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
}
