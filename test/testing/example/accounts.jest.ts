import { afterAll, afterEach, beforeAll, beforeEach, expect, it, jest } from '@jest/globals';
import { Test, type TestingModule } from '@nestjs/testing';
import { getRepositoryToken } from '@nestjs/typeorm';
import {
  BildadTesting,
  BildadTestingModule,
  closeTesting,
  createTestDatabase,
  performJob,
  type TestDatabase,
} from 'nestjs-bildad/testing';
import 'nestjs-bildad/testing/jest';
import { DataSource } from 'typeorm';
import { Account, AccountService, AppModule, Mailer, WelcomeJob } from './app.js';

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let accounts: AccountService;
let mailer: Mailer;

beforeAll(async () => {
  database = await createTestDatabase();
  process.env['APP_DATABASE_URL'] = database.url;
  app = await Test.createTestingModule({
    imports: [AppModule, BildadTestingModule.forRoot({ mode: 'manual' })],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  accounts = app.get(AccountService);
  mailer = app.get(Mailer);
});
afterAll(async () => {
  await closeTesting(app);
  await database.drop();
  delete process.env['APP_DATABASE_URL'];
});

// The rollback removes everything that a test wrote.
beforeEach(() => testing.begin());
afterEach(async () => {
  jest.restoreAllMocks();
  await testing.rollback();
});

it('a new account gets a welcome mail after an hour', async () => {
  const account = await accounts.signUp('ada@example.com');
  await expect(testing).toHaveEnqueued(WelcomeJob, { to: 'ada@example.com' });
  expect(await testing.drain()).toEqual([]);

  await testing.clock.advance('1h');
  expect(await testing.drain()).toMatchObject([
    { outcome: 'completed', run: { output: 'welcomed ada@example.com' } },
  ]);
  const saved = await app.get(DataSource).manager.findOneBy(Account, {
    id: account.id,
  });
  expect(saved).toMatchObject({ welcomed: true });
});

it('the mail is retried when the mail server is down', async () => {
  jest.spyOn(mailer, 'send').mockRejectedValueOnce(new Error('down'));
  await accounts.signUp('ada@example.com');
  await testing.clock.advance('1h');
  const [failed] = await testing.drain();
  expect(failed).toMatchObject({ outcome: 'failed', run: { reason: 'down' } });

  await testing.clock.advance('10m');
  expect(await testing.drain()).toMatchObject([{ outcome: 'completed' }]);
});

it('the handler runs without a database', async () => {
  const update = jest.fn();
  const performed = await performJob(
    WelcomeJob,
    { accountId: 1, to: 'ada@example.com' },
    {
      providers: [Mailer, { provide: getRepositoryToken(Account), useValue: { update } }],
    },
  );
  expect(performed).toMatchObject({
    outcome: 'completed',
    result: 'welcomed ada@example.com',
    progress: [{ fraction: 0.5, message: 'sent' }],
  });
  expect(update).toHaveBeenCalledWith(1, { welcomed: true });
});
