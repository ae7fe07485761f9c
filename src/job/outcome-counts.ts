/** How many outcomes of a pass are good and how many are not. */
export function countOutcomes(outcomes: readonly { ok: boolean }[]): {
  okCount: number;
  errorCount: number;
} {
  const okCount = outcomes.filter(({ ok }) => ok).length;
  return { okCount, errorCount: outcomes.length - okCount };
}
