import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule } from 'nestjs-bildad';
import type pg from 'pg';
import type { DataSource } from 'typeorm';
import { expect, it } from 'vitest';
import { createDatabase } from '../support/database.js';
import { QUIET } from '../support/host.js';

it('eleven engines on one DataSource add no listeners to its pool', async () => {
  const database = await createDatabase();
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: database.url,
        autoLoadEntities: true,
        retryAttempts: 0,
      }),
      ...Array.from({ length: 11 }, (_none, n) =>
        BildadModule.forRoot({ ...QUIET, name: `engine${n}`, role: 'producer' }),
      ),
    ],
  })
  class App {}
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on('warning', warn);
  const app = await NestFactory.createApplicationContext(App, {
    logger: false,
    abortOnError: false,
  });
  try {
    const { driver } = app.get<DataSource>(getDataSourceToken());
    const { master } = driver as unknown as { master: pg.Pool };
    expect(master.listenerCount('acquire')).toBe(1);
    const client = await master.connect();
    expect(client.listenerCount('error')).toBeLessThan(5);
    client.release();
  } finally {
    await app.close();
    process.off('warning', warn);
  }
  expect(warnings).toEqual([]);
  await database.drop();
});
