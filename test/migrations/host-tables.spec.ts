import { Injectable } from '@nestjs/common';
import { InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import { BILDAD_MIGRATIONS, JobEngineService, JobRun, JobsService } from 'nestjs-bildad';
import {
  Column,
  DataSource,
  Entity,
  JoinColumn,
  ManyToOne,
  PrimaryGeneratedColumn,
  Repository,
} from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootHost } from '../support/host.js';

// Our tables beside the host's: TypeORM's synchronize does not change ours, and the host's entities
// can refer to ours.

@Entity('invoices')
class Invoice {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  number!: string;

  @ManyToOne(() => JobRun, { nullable: true })
  @JoinColumn({ name: 'sent_by' })
  sentBy!: JobRun | null;
}

@Injectable()
class Invoices {
  constructor(
    @InjectRepository(Invoice) readonly invoices: Repository<Invoice>,
    @InjectRepository(JobRun) readonly runs: Repository<JobRun>,
  ) {}
}

let database: TestDatabase;
beforeEach(async () => {
  database = await createEmptyDatabase();
});
afterEach(() => database.drop());

const host = (typeorm: object) =>
  bootHost({
    url: database.url,
    providers: [SimpleJob, Invoices],
    imports: [TypeOrmModule.forFeature([Invoice])],
    typeorm,
  });

/** Every column, index and constraint of our schema as PostgreSQL describes it. */
const described = () =>
  database.sql<{ what: string }>(`
    SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) AS what
      FROM information_schema.columns WHERE table_schema = 'bildad'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'bildad'
    UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'bildad'::regnamespace
    UNION ALL SELECT relname || ' ' || coalesce(reloptions::text, '') FROM pg_class
      WHERE relnamespace = 'bildad'::regnamespace
    ORDER BY 1`);

it('synchronize: true does not change our tables and partial indexes', async () => {
  await (await bootHost({ url: database.url })).close();
  const before = await described();
  expect(before.filter(({ what }) => what.includes(' WHERE '))).toHaveLength(7);
  const app = await host({ synchronize: true });
  await app.get(DataSource).synchronize();
  expect(await described()).toEqual(before);
  await app.close();
});

it("a host's entity has a foreign key to runs and can be joined", async () => {
  // The foreign key needs our tables before TypeORM creates the host's, so BILDAD_MIGRATIONS run
  // first.
  const app = await host({
    migrations: BILDAD_MIGRATIONS,
    migrationsRun: true,
    synchronize: true,
  });
  const engine = app.get(JobEngineService);
  const { invoices, runs } = app.get(Invoices);
  const { jobRunIdentifier } = await engine.enqueueAndRunJob(SimpleJob, {
    say: 'sent',
  });
  const run = await engine.waitForJob(jobRunIdentifier);
  await invoices.save({ number: '2024-1', sentBy: run });

  const [read] = await invoices.find({
    relations: { sentBy: true },
    where: { sentBy: { result: 'SUCCEEDED' } },
  });
  expect(read!.sentBy).toBeInstanceOf(JobRun);
  expect(read).toMatchObject({ number: '2024-1', sentBy: run });
  expect(await runs.findOneBy({ jobRunIdentifier })).toEqual(run);
  expect(await app.get(JobsService).listJobRunsForIdentifier(jobRunIdentifier)).toEqual([run]);

  await expect(
    database.sql("INSERT INTO invoices (number, sent_by) VALUES ('x', 999)"),
  ).rejects.toThrow(/foreign key/);
  await app.close();
});

it('dataSource.getRepository(JobRun) reads the runs', async () => {
  const app = await bootHost({ url: database.url, providers: [SimpleJob] });
  const engine = app.get(JobEngineService);
  const run = await engine.enqueueAndRunJob(SimpleJob, {});
  await engine.waitForJob(run.jobRunIdentifier);
  expect(await app.get(DataSource).getRepository(JobRun).countBy({ id: run.id })).toBe(1);
  await app.close();
});
