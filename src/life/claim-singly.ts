import { isRefusal } from '../store/database-error.js';
import { claimEntries, pickNext } from '../store/claim.store.js';
import type { Claim, Claimer } from '../store/claim-rows.js';
import type { Quarantine } from './quarantine.js';
import type { Store } from './store.js';

/**
 * Claims one after another, for when the database refuses to claim several: the one that it refuses is put aside.
 * Slower by as much as four statements are than a share of one, and seldom.
 */
export async function claimSingly(
  { dataSource, tables }: Store,
  claimer: Claimer,
  quarantine: Quarantine,
  codes: string[],
  limit: number,
): Promise<Claim[]> {
  const claims: Claim[] = [];
  while (claims.length < limit) {
    // The pick locks its row, so that it is this very entry which is refused.
    const next = await dataSource.transaction(async (manager) => {
      const id = await pickNext(manager, tables, codes);
      if (id === null) return null;
      try {
        const claimed = await manager.transaction((savepoint) =>
          claimEntries(savepoint, tables, claimer, [id]),
        );
        return { claimed, aside: [] };
      } catch (error) {
        if (!isRefusal(error)) throw error;
        const aside = await quarantine.putQuietly(manager, [id], error);
        return { claimed: [], aside };
      }
    });
    if (!next) break;
    quarantine.tell(next.aside);
    claims.push(...next.claimed);
  }
  return claims;
}
