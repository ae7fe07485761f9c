import type { DataSource, EntityManager, QueryRunner } from 'typeorm';
import { depthOf } from './current-transaction.js';

/** Calls back after the commit of a transaction, and never after its rollback. */
export class CommitWatch {
  /** The savepoint depth at which each callback was registered. A rollback to a lower depth drops it. */
  private readonly pending = new WeakMap<QueryRunner, Map<() => void, number>>();

  constructor(private readonly dataSource: DataSource) {}

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

  /** Calls back after the commit, or at once without a transaction. A callback that is registered twice is called once. It must not throw. */
  afterCommit({ queryRunner }: EntityManager, callback: () => void): void {
    if (!queryRunner?.isTransactionActive) return callback();
    let callbacks = this.pending.get(queryRunner);
    if (!callbacks) this.pending.set(queryRunner, (callbacks = new Map()));
    const depth = depthOf(queryRunner);
    callbacks.set(callback, Math.min(callbacks.get(callback) ?? depth, depth));
  }

  /** TypeORM reports savepoints as transactions too. */
  private readonly subscriber = {
    afterTransactionCommit: ({ queryRunner }: { queryRunner: QueryRunner }) => {
      const callbacks = this.pending.get(queryRunner);
      if (!callbacks) return;
      if (queryRunner.isTransactionActive) {
        const outerDepth = depthOf(queryRunner);
        for (const [callback, depth] of callbacks)
          callbacks.set(callback, Math.min(depth, outerDepth));
        return;
      }
      this.pending.delete(queryRunner);
      for (const callback of callbacks.keys()) callback();
    },
    afterTransactionRollback: ({ queryRunner }: { queryRunner: QueryRunner }) => {
      const outerDepth = queryRunner.isTransactionActive ? depthOf(queryRunner) : 0;
      const callbacks = this.pending.get(queryRunner);
      for (const [callback, depth] of callbacks ?? [])
        if (depth > outerDepth) callbacks!.delete(callback);
    },
  };
}
