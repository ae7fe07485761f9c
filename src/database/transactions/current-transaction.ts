import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource, EntityManager } from 'typeorm';
import { BildadConfigError, TransactionOverError } from '../../job/errors.js';
import { TransactionEnds } from './transaction-end.js';
import type { CurrentManager } from '../../options/module-options.js';

/** A transaction that whatever was begun in it belongs to. */
interface Ambient {
  dataSource: DataSource;
  manager: EntityManager;
  over: boolean;
  /** The one it was begun in, which may be of another DataSource. */
  outer: Ambient | undefined;
}

/** Made when it is needed first: on Node 20 one that is in use makes every promise dearer. */
let storage: AsyncLocalStorage<Ambient> | undefined;
/** Somebody may be in a transaction that we would join, ours or the host's. */
let inUse = false;
const atStart = AsyncLocalStorage.snapshot();

/** What `work` does, and whatever it begins, is in this transaction; when it has ended, so has the transaction. */
export async function within<T>(
  { dataSource }: { dataSource: DataSource },
  manager: EntityManager,
  work: () => T | Promise<T>,
): Promise<T> {
  inUse = true;
  storage ??= new AsyncLocalStorage();
  const outer = storage.getStore();
  const ambient: Ambient = { dataSource, manager, over: false, outer };
  try {
    return await storage.run(ambient, async () => work());
  } finally {
    ambient.over = true;
  }
}

/** Whether there may be transactions that calls join. */
export const joinable = () => inUse;

/** For what the engine does by itself, whoever happened to set it off: no job of others belongs to that transaction. */
export const outside = <T>(work: () => T): T => (inUse ? atStart(work) : work());

/** The transaction that a call joins which names none. */
export class CurrentTransaction {
  private readonly dataSource: DataSource;
  private readonly ends: TransactionEnds;

  constructor(
    { dataSource }: { dataSource: DataSource },
    private readonly hosts: CurrentManager | undefined,
  ) {
    this.dataSource = dataSource;
    this.ends = new TransactionEnds(dataSource);
    inUse ||= hosts !== undefined;
  }

  /** @throws TransactionOverError in what a transaction left behind; BildadConfigError */
  get manager(): EntityManager | undefined {
    return inUse ? (this.ours ?? this.hostsOwn) : undefined;
  }

  /** @param given null: none, whatever the call is made in. @throws as `manager`; BildadConfigError */
  of(given: EntityManager | null | undefined): EntityManager | undefined {
    if (given === undefined) return this.manager;
    // What is not one could not be told from no transaction.
    if (given !== null && typeof given.query !== 'function')
      throw new BildadConfigError(
        'manager',
        'must be the EntityManager of a transaction, or null',
        { got: given },
      );
    return given ?? undefined;
  }

  /**
   * @returns to be called right before something is written in it: what is written after its end would stay, whatever
   *   became of the transaction. @throws TransactionOverError there
   */
  guard(manager: EntityManager): () => void {
    const check = this.ends.guard(manager);
    const ambient = storage?.getStore();
    return () => {
      if (ambient?.manager === manager && ambient.over) throw new TransactionOverError();
      check();
    };
  }

  private get ours(): EntityManager | undefined {
    for (let ambient = storage?.getStore(); ambient; ambient = ambient.outer) {
      if (ambient.dataSource !== this.dataSource) continue;
      if (ambient.over) throw new TransactionOverError();
      return ambient.manager;
    }
    return undefined;
  }

  /** Such helpers give the DataSource's own manager where there is no transaction. */
  private get hostsOwn(): EntityManager | undefined {
    const manager = this.hosts?.();
    if (manager && typeof manager.query !== 'function')
      throw new BildadConfigError('currentManager', 'must return an EntityManager or undefined', {
        got: manager,
      });
    if (!manager?.queryRunner?.isTransactionActive) return undefined;
    // Called `dataSource` since TypeORM 1.0, and this ever since.
    const { connection } = manager as unknown as { connection: DataSource };
    if (connection !== this.dataSource)
      throw new BildadConfigError(
        'currentManager',
        "must return an EntityManager of the engine's own DataSource, not of another one",
      );
    return manager;
  }
}
