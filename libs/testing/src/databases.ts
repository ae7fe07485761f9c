import { randomUUID } from 'node:crypto';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule } from 'nestjs-bildad';
import pg from 'pg';
import { startPostgresInMemory, type PostgresServerOptions } from './postgres-server.js';

export interface TestServerOptions extends Pick<PostgresServerOptions, 'settings'> {
  /** A server to use instead of starting one, as a superuser or who may create databases. Default: `DATABASE_URL`, where that is set. */
  url?: string | undefined;
  /** The schemas of Bildad's tables. Default `['bildad']`; `[]`: none. */
  schemas?: string[];
  /** Brings the app's own tables into the template that all test databases are copies of. To have no connection to it open when it resolves. */
  prepare?: (url: string) => Promise<void>;
}

export interface TestServer {
  url: string;
  /** Stops the server, where it was started for this; else drops the template. */
  stop(): Promise<void>;
}

export interface TestDatabase {
  url: string;
  /** Also where something is connected to it. */
  drop(): Promise<void>;
}

/** Many connections, and as little to write as possible for each database that is created and dropped. */
const SETTINGS = { max_connections: '300', wal_level: 'minimal', max_wal_senders: '0' };

/** By way of the environment: those who create databases are the test runner's other processes. */
const SERVER = 'BILDAD_TEST_SERVER';
const TEMPLATE = 'BILDAD_TEST_TEMPLATE';

/**
 * A PostgreSQL server for a whole suite, and a template that has the tables: for the `globalSetup` of vitest or jest.
 * `createTestDatabase` finds it, in whatever process of the suite.
 */
export async function startTestServer({
  url = process.env['DATABASE_URL'],
  schemas = ['bildad'],
  prepare,
  settings,
}: TestServerOptions = {}): Promise<TestServer> {
  const server = url
    ? undefined
    : await startPostgresInMemory({ settings: { ...SETTINGS, ...settings } });
  const address = url ?? server!.url;
  const template = nameOf('template');
  const stop = async () => {
    delete process.env[SERVER];
    delete process.env[TEMPLATE];
    await (server ? server.stop() : dropDatabase(address, template));
  };
  try {
    await sql(address, `CREATE DATABASE ${template}`);
    const made = urlOf(address, template);
    for (const schema of schemas) await makeTables(made, schema);
    await prepare?.(made);
  } catch (error) {
    await stop();
    throw error;
  }
  process.env[SERVER] = address;
  process.env[TEMPLATE] = template;
  return { url: address, stop };
}

/** A server that this process has started for its databases. */
interface Own {
  server: Promise<TestServer>;
  databases: number;
}
let own: Own | undefined;

/**
 * A database of its own, with the tables of the template: for each file of specs, which then may run beside others.
 * Without `startTestServer` in the `globalSetup` a server is started, and stopped with its last database.
 */
export async function createTestDatabase(): Promise<TestDatabase> {
  const given = process.env[SERVER];
  const mine = given && !own ? undefined : (own ??= { server: startTestServer(), databases: 0 });
  if (mine) mine.databases++;
  try {
    const address = mine ? (await mine.server).url : given!;
    const name = nameOf('test');
    const template = process.env[TEMPLATE]!;
    await sql(address, `CREATE DATABASE ${name} TEMPLATE ${template}`);
    return {
      url: urlOf(address, name),
      drop: async () => {
        await dropDatabase(address, name);
        await letGo(mine);
      },
    };
  } catch (error) {
    await letGo(mine).catch(() => undefined);
    throw error;
  }
}

/** One database less. One that did not start is not kept for the next one to ask. */
async function letGo(mine: Own | undefined): Promise<void> {
  if (!mine || --mine.databases > 0) return;
  if (own === mine) own = undefined;
  await (await mine.server).stop();
}

const dropDatabase = (address: string, name: string) =>
  sql(address, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);

async function makeTables(url: string, schema: string): Promise<void> {
  class TablesModule {}
  const app = await NestFactory.createApplicationContext(
    {
      module: TablesModule,
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url,
          autoLoadEntities: true,
          retryAttempts: 0,
        }),
        BildadModule.forRoot({ schema, role: 'producer', notify: false }),
      ],
    },
    { logger: false, abortOnError: false },
  );
  await app.close();
}

const nameOf = (what: string) => `bildad_${what}_${randomUUID().replaceAll('-', '')}`;

function urlOf(server: string, database: string): string {
  const url = new URL(server);
  url.pathname = `/${database}`;
  return url.href;
}

async function sql(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}
