import { randomUUID } from 'node:crypto';
import { Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  BILDAD_ENTITIES,
  BildadConfigError,
  BildadDatabaseError,
  bildadEntities,
  BildadModule,
  JobEngineService,
} from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootError, bootHost, type HostOptions } from '../support/host.js';

// An unusable database keeps the app from starting, and the error says how to fix it.

let database: TestDatabase;
beforeAll(async () => {
  database = await createEmptyDatabase();
});
afterAll(() => database.drop());

async function expectToWork(host: HostOptions): Promise<void> {
  const app = await bootHost({ providers: [SimpleJob], ...host });
  const engine = app.get(JobEngineService);
  const run = await engine.enqueueAndRunJob(SimpleJob, {});
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
  await app.close();
}

describe('the connection', () => {
  it('an unreachable server fails the boot', async () => {
    expect(await bootError({ url: 'postgres://nobody@127.0.0.1:1/none' })).toMatchObject({
      code: 'ECONNREFUSED',
    });
  });

  it('a DataSource that is not initialized fails the boot', async () => {
    const error = await bootError({
      url: database.url,
      typeorm: { manualInitialization: true },
    });
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/^dataSource must be initialized: .*manualInitialization/);
  });

  it('a DataSource of another type fails the boot', async () => {
    const error = await bootError({
      url: database.url,
      // CockroachDB is the other type that uses the driver pg.
      typeorm: { type: 'cockroachdb', manualInitialization: true } as object,
    });
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/of type 'postgres', got 'cockroachdb'/);
  });
});

describe('entities listed by hand', () => {
  it('entities without BILDAD_ENTITIES fail the boot', async () => {
    const error = await bootError({
      url: database.url,
      typeorm: { autoLoadEntities: false, entities: [] },
    });
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/BILDAD_ENTITIES/);
  });

  it('entities with BILDAD_ENTITIES work', () =>
    expectToWork({
      url: database.url,
      typeorm: { autoLoadEntities: false, entities: BILDAD_ENTITIES },
    }));

  it('another schema without its bildadEntities fails the boot', async () => {
    const error = await bootError({
      url: database.url,
      bildad: { schema: 'elsewhere' },
      typeorm: { autoLoadEntities: false, entities: BILDAD_ENTITIES },
    });
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/bildadEntities\('elsewhere'\)/);
  });

  it('another schema with its bildadEntities works', () =>
    expectToWork({
      url: database.url,
      bildad: { schema: 'elsewhere' },
      typeorm: {
        autoLoadEntities: false,
        entities: Object.values(bildadEntities('elsewhere')),
      },
    }));
});

describe('privileges', () => {
  const role = `r_${randomUUID().replaceAll('-', '')}`;
  let url: string;
  let restricted: TestDatabase;

  beforeAll(async () => {
    restricted = await createEmptyDatabase();
    await restricted.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`);
    const address = new URL(restricted.url);
    address.username = role;
    address.password = 'secret';
    url = address.href;
  });
  afterAll(async () => {
    await restricted.sql(`DROP OWNED BY ${role}`);
    await restricted.sql(`DROP ROLE ${role}`);
    await restricted.drop();
  });

  const refused = async () => {
    const error = await bootError({ url });
    expect(error).toBeInstanceOf(BildadDatabaseError);
    expect(error).toMatchObject({
      code: 'BILDAD_DATABASE',
      databaseCode: '42501',
    });
    return error.message;
  };

  it('a missing privilege to create the schema fails the boot', async () => {
    expect(await refused()).toMatch(/GRANT CREATE ON DATABASE/);
  });

  it('a missing privilege to use the schema fails the boot', async () => {
    await expectToWork({ url: restricted.url });
    expect(await refused()).toMatch(/GRANT USAGE ON SCHEMA "bildad"/);
  });

  it('a missing privilege to use the tables fails the boot', async () => {
    await restricted.sql(`GRANT USAGE ON SCHEMA bildad TO ${role}`);
    expect(await refused()).toMatch(/SELECT, INSERT, UPDATE, DELETE ON ALL/);
  });

  it('the privileges named by the error are sufficient', async () => {
    await restricted.sql(
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA bildad TO ${role}`,
    );
    const app = await bootHost({ url, providers: [SimpleJob] });
    const engine = app.get(JobEngineService);
    const entry = await engine.enqueueJob(SimpleJob, { say: 'allowed' });
    await engine.runJobEngine();
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      output: 'allowed',
    });
    await app.close();
  });

  it('a role that may create schemas needs no other privilege', async () => {
    await restricted.sql(
      `GRANT CREATE ON DATABASE ${new URL(restricted.url).pathname.slice(1)} TO ${role}`,
    );
    await expectToWork({ url, bildad: { schema: 'own' } });
  });

  it('a read-only server fails the boot', async () => {
    const error = await bootError({
      url: `${database.url}?options=-c%20default_transaction_read_only%3Don`,
      bildad: { schema: 'unwritten' },
    });
    expect(error).toBeInstanceOf(BildadDatabaseError);
    expect(error.message).toMatch(/read-only/);
  });
});

it('an app whose own bootstrap hook fails can be closed and leaves nothing behind', async () => {
  @Injectable()
  class Failing implements OnApplicationBootstrap {
    onApplicationBootstrap(): Promise<void> {
      return Promise.reject(new Error('not today'));
    }
  }
  const app = await Test.createTestingModule({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: database.url,
        autoLoadEntities: true,
      }),
      BildadModule.forRoot({ tickInterval: 10 }),
    ],
    providers: [Failing],
  }).compile();
  await expect(app.init()).rejects.toThrow('not today');
  await app.close();
});
