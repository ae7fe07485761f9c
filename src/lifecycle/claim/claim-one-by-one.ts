import { isRefusal } from '../../database/database-error.js';
import { claimEntries, pickEntries } from './claim.sql.js';
import { inSavepoint } from '../../database/transactions/savepoint.js';
import type { Queryable } from '../../database/tables.js';
import type { Claim, Claimer } from './claim-rows.js';
import type { QuarantinedEntry } from './quarantine.sql.js';
import type { Quarantine, Refused } from './quarantine.js';
import type { Store } from '../../database/store.js';

/**
 * Claims one after another, for when the database refuses to claim several: those that it refuses are put aside.
 * Three statements for each, and seldom.
 */
export async function claimSingly(
  { db, tables }: Store,
  claimer: Claimer,
  quarantine: Quarantine,
  codes: string[],
  limit: number,
): Promise<Claim[]> {
  const claims: Claim[] = [];
  let aside: QuarantinedEntry[];
  const look = async (transaction: Queryable): Promise<Claim[]> => {
    // The pick locks its rows, so that these very entries are refused.
    const most = limit - claims.length;
    const ids = await pickEntries(transaction, tables, codes, most);
    const claimed: Claim[] = [];
    const refused: Refused[] = [];
    for (const id of ids)
      try {
        claimed.push(
          ...(await inSavepoint(transaction, () =>
            claimEntries(transaction, tables, claimer, [id]),
          )),
        );
      } catch (error) {
        if (!isRefusal(error)) throw error;
        refused.push({ id, error });
      }
    aside = await quarantine.judge(refused, claimed.length > 0, transaction);
    return claimed;
  };
  do {
    claims.push(...(await db.transaction(look)));
    quarantine.tell(aside!);
  } while (aside!.length > 0 && claims.length < limit);
  return claims;
}
