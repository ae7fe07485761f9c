import type { DataSource } from 'typeorm';
import type { AnyClient } from './session.js';
import { SharedConnection } from './shared-connection.js';

type Done = (error: unknown, client?: AnyClient, release?: (error?: unknown) => void) => void;

interface Pool {
  options?: { max?: number };
  totalCount?: number;
  idleCount?: number;
  connect(done?: Done): Promise<AnyClient> | void;
}
type PoolClass = new (...args: any[]) => Pool;

const ROOM = 3;

const known = new WeakMap<DataSource, SwitchedPools>();

/**
 * The pools of a DataSource, and pools with the same options such as the engine's. While a transaction is
 * shared, they return sessions of it.
 */
export class SwitchedPools {
  private shared: SharedConnection | undefined;
  private client: AnyClient | undefined;
  private readonly master: Pool;
  private connectForReal: () => Promise<AnyClient>;

  /** One instance per DataSource. Must be called before an engine connects. */
  static of(dataSource: DataSource): SwitchedPools {
    let pools = known.get(dataSource);
    if (!pools) known.set(dataSource, (pools = new SwitchedPools(dataSource)));
    return pools;
  }

  private constructor(dataSource: DataSource) {
    const { master, slaves = [] } = dataSource.driver as unknown as {
      master?: Pool;
      slaves?: Pool[];
    };
    if (!master) throw new Error('BildadTestingModule needs a DataSource of `pg`');
    this.master = master;
    this.connectForReal = master.connect.bind(master) as () => Promise<AnyClient>;
    const made = master.constructor as PoolClass;
    const takes = (pool: Pool) => this.switch(pool);
    class SwitchedPool extends made {
      constructor(...args: any[]) {
        super(...args);
        takes(this);
      }
    }
    for (const pool of [master, ...slaves]) takes(pool);
    Object.defineProperty(master, 'constructor', {
      value: SwitchedPool,
      configurable: true,
    });
  }

  get isShared(): boolean {
    return this.shared !== undefined;
  }

  /** Whether a job that runs now gets its connections: some, in case that others want one as well. */
  get hasRoom(): boolean {
    if (this.isShared) return true;
    const { options, totalCount = 0, idleCount = 0 } = this.master;
    return (options?.max ?? 10) - totalCount + idleCount > ROOM;
  }

  async begin(): Promise<void> {
    const client = await this.connectForReal();
    const shared = new SharedConnection(client);
    try {
      await shared.start();
    } catch (error) {
      client.release(error);
      throw error;
    }
    this.client = client;
    this.shared = shared;
  }

  async rollback(): Promise<void> {
    const { shared, client } = this;
    this.shared = undefined;
    this.client = undefined;
    try {
      await shared?.rollback();
    } catch (error) {
      client?.release(error);
      throw error;
    }
    client?.release();
  }

  private switch(pool: Pool): void {
    const connect = pool.connect.bind(pool);
    pool.connect = (done?: Done) => {
      const session = this.shared?.session();
      if (!session) return done ? connect(done) : connect();
      if (!done) return Promise.resolve(session);
      queueMicrotask(() => done(undefined, session, (error) => session.release(error)));
    };
  }
}
