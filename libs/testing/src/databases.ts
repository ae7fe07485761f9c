import { randomUUID } from 'node:crypto';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule } from 'nestjs-bildad';
import pg from 'pg';
import { startPostgresInMemory, type PostgresServerOptions } from './postgres-server.js';

export interface TestServerOptions extends Pick<PostgresServerOptions, 'settings'> {
  /** URL of a server to use, with a user that may create databases. Default: `DATABASE_URL`; without it a server is started. */
  url?: string | undefined;
  /** The schemas of Bildad's tables. Default `['bildad']`; `[]`: none. */
  schemas?: string[];
  /** Creates the app's own tables in the template of all test databases. Must close its connections before it resolves. */
  prepare?: (url: string) => Promise<void>;
}

export interface TestServer {
  url: string;
  /** Stops the server if it was started by this call, else drops the template. */
  stop(): Promise<void>;
}

export interface TestDatabase {
  url: string;
  /** Drops the database, even if sessions are connected to it. */
  drop(): Promise<void>;
}

/** Settings for many connections and for few writes per created and dropped database. */
const SETTINGS = { max_connections: '300', wal_level: 'minimal', max_wal_senders: '0' };

/** An environment variable, because other processes of the test runner create the databases. */
const SERVER = 'BILDAD_TEST_SERVER';
const TEMPLATE = 'BILDAD_TEST_TEMPLATE';

/**
 * A PostgreSQL server for a whole suite, and a template that has the tables: for the `globalSetup` of vitest or jest.
 * `createTestDatabase` finds it in every process of the suite.
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

/** The server that this process started for its databases. */
interface Own {
  server: Promise<TestServer>;
  databases: number;
}
let own: Own | undefined;

/**
 * Creates a database with the tables of the template, for a spec file that runs in parallel with others.
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

/** Counts a dropped database. A server that did not start is not reused. */
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
