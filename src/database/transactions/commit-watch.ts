import type { DataSource, EntityManager, QueryRunner } from 'typeorm';

/** Tells when a transaction that somebody asked about has been committed; one that is rolled back is forgotten. */
export class CommitWatch {
  private readonly watched = new WeakSet<QueryRunner>();

  constructor(
    private readonly dataSource: DataSource,
    private readonly committed: () => void,
  ) {}

  /** Idempotent. */
  start(): void {
    const { subscribers } = this.dataSource;
    if (!subscribers.includes(this.subscriber)) subscribers.push(this.subscriber);
  }

  /** Safe if never started. */
  stop(): void {
    const { subscribers } = this.dataSource;
    const at = subscribers.indexOf(this.subscriber);
    if (at >= 0) subscribers.splice(at, 1);
  }

  /** At once where the manager has no transaction. */
  after({ queryRunner }: EntityManager): void {
    if (queryRunner?.isTransactionActive) this.watched.add(queryRunner);
    else this.committed();
  }

  private readonly subscriber = {
    afterTransactionCommit: ({ queryRunner }: { queryRunner: QueryRunner }) => {
      // TypeORM tells of a savepoint's release as well.
      if (queryRunner.isTransactionActive) return;
      if (this.watched.delete(queryRunner)) this.committed();
    },
  };
}
