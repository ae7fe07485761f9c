import type { DataSource } from 'typeorm';

type Done = (error: unknown, client?: Client, release?: unknown) => void;
interface Client {
  query(sql: string, values: unknown[]): Promise<unknown>;
}
interface Pool {
  options: { max: number };
  connect(done?: Done): Promise<Client> | void;
}

const RENAME = `SELECT set_config('application_name', $1, false)`;

/**
 * Names the connections of a DataSource after the run that uses them, so that its statements, and only
 * they, can be cancelled on the server when its host was killed. A connection is renamed once for each
 * run that takes it.
 */
export function nameSessions(
  dataSource: DataSource,
  { max, name }: { max: number; name: () => string },
): void {
  const pool = poolOf(dataSource);
  // The driver is not `pg`.
  if (!pool) return;
  pool.options.max = Math.min(pool.options.max, max);
  const connect = pool.connect.bind(pool);
  const names = new WeakMap<Client, string>();
  const rename = async (client: Client) => {
    const wanted = name();
    if (names.get(client) === wanted) return;
    await client.query(RENAME, [wanted]);
    names.set(client, wanted);
  };
  pool.connect = (done?: Done) => {
    if (!done)
      return (connect() as Promise<Client>).then(async (client) => {
        await rename(client).catch(() => undefined);
        return client;
      });
    return connect((error, client, release) => {
      if (error || !client) return done(error, client, release);
      rename(client).then(
        () => done(undefined, client, release),
        // The first statement will report what is wrong with the connection.
        () => done(undefined, client, release),
      );
    });
  };
}

function poolOf({ driver }: DataSource): Pool | undefined {
  const { master } = driver as { master?: Partial<Pool> };
  return typeof master?.connect === 'function' && master.options ? (master as Pool) : undefined;
}
