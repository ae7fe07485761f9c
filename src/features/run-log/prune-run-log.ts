import type { EngineContext } from '../../database/engine-context.js';
import type { PassStep } from '../../lifecycle/extension-points.js';
import { pruneNotes, pruneOrphanedNotes } from './run-log.sql.js';

const PER_STATEMENT = 1_000;
/** A pass must not take long: the next one continues. */
const STATEMENTS_PER_PASS = 20;

/** Once per lease: deletes notes that are too old, and notes of deleted runs. */
export function pruneRunLog({ store, node }: Pick<EngineContext, 'store' | 'node'>): PassStep {
  const { tables } = store;
  /** Notes of runs up to here were checked. */
  let checkedUpTo = '0';
  let prunedAll = true;
  return {
    name: 'prune run log',
    get every() {
      return node.leaseMs;
    },
    async run({ db, deadline }) {
      if (prunedAll)
        checkedUpTo = (await pruneOrphanedNotes(db, tables, checkedUpTo, PER_STATEMENT)) ?? '0';
      prunedAll = false;
      for (let n = 0; n < STATEMENTS_PER_PASS && performance.now() < deadline; n++)
        if ((await pruneNotes(db, tables, PER_STATEMENT)) < PER_STATEMENT) {
          prunedAll = true;
          return undefined;
        }
      return 'more';
    },
  };
}
