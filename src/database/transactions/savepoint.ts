import type { Queryable } from '../tables.js';

/** What fails in here undoes itself, and leaves the transaction around it as it was. */
export async function inSavepoint<T>(transaction: Queryable, work: () => Promise<T>): Promise<T> {
  await transaction.query('SAVEPOINT bildad');
  try {
    const result = await work();
    await transaction.query('RELEASE SAVEPOINT bildad');
    return result;
  } catch (error) {
    await transaction.query('ROLLBACK TO SAVEPOINT bildad');
    throw error;
  }
}
