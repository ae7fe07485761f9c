import { BildadError } from './errors.js';

/**
 * A call was made in what a transaction left behind: it has been committed or rolled back already. Await inside of the
 * transaction what belongs to it; `{ manager: null }` enqueues outside of it.
 */
export class TransactionOverError extends BildadError {
  readonly code = 'TRANSACTION_OVER';

  constructor() {
    super(
      'the transaction that this call was made in is over: await the call inside of it, or pass { manager: null } to enqueue outside of it',
    );
  }
}
