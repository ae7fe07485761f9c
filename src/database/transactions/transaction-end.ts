import type { DataSource, EntityManager, QueryRunner } from 'typeorm';
import { TransactionOverError } from '../../job/errors.js';

/** How many savepoints deep the transaction is, plus one: TypeORM counts them, and does not publish the count. */
export const depthOf = (runner: QueryRunner) =>
  (runner as unknown as { transactionDepth?: number }).transactionDepth ?? 1;

/**
 * Knows when a transaction is about to end. What is sent after its ROLLBACK would be committed by itself, and nobody can
 * tell by the connection: TypeORM says that a transaction is active until the ROLLBACK is answered.
 */
export class TransactionEnds {
  /** How deep what is ending just now is. */
  private readonly ending = new WeakMap<QueryRunner, number>();
  private watching = false;

  constructor(private readonly dataSource: DataSource) {}

  /** @returns what throws TransactionOverError once that transaction, or savepoint, is ending; nothing where there is none */
  guard({ queryRunner: runner }: EntityManager): () => void {
    if (!runner?.isTransactionActive) return () => {};
    this.watch();
    const depth = depthOf(runner);
    return () => {
      const isOver =
        runner.isReleased ||
        !runner.isTransactionActive ||
        depthOf(runner) < depth ||
        (this.ending.get(runner) ?? Infinity) <= depth;
      if (isOver) throw new TransactionOverError();
    };
  }

  /** For as long as the DataSource lives: it knows of nothing but transactions. */
  private watch(): void {
    if (this.watching) return;
    this.watching = true;
    const begins = ({ queryRunner }: { queryRunner: QueryRunner }) =>
      void this.ending.set(queryRunner, depthOf(queryRunner));
    const ends = ({ queryRunner }: { queryRunner: QueryRunner }) =>
      void this.ending.delete(queryRunner);
    this.dataSource.subscribers.push({
      beforeTransactionCommit: begins,
      beforeTransactionRollback: begins,
      afterTransactionCommit: ends,
      afterTransactionRollback: ends,
    });
  }
}
