import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { afterEach, expect, it } from 'vitest';
import { bootApp } from '../support/app.js';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';

// Databases whose encoding has only some characters.

@BildadJob({ code: 'QUOTES', maxRetries: 0 })
class QuotesJob implements JobHandler {
  runJob({ fails }: { fails: boolean }): unknown {
    if (fails) throw new Error('no such file: “ä”');
    return 'an “output”';
  }
}

let database: TestDatabase;
afterEach(() => database.drop());

it.each(['LATIN1', 'LATIN2', 'SQL_ASCII'])(
  'in %s, a run ends whose texts it cannot store',
  async (encoding) => {
    database = await createEmptyDatabase(
      `ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`,
    );
    const app = await bootApp({ providers: [QuotesJob], database });
    const runs = [];
    for (const fails of [true, false]) {
      const run = await app.engine.enqueueAndRunJob(QuotesJob, { fails });
      runs.push(await app.engine.waitForJob(run.jobRunIdentifier));
    }
    const isStored = encoding === 'SQL_ASCII';
    expect(runs).toMatchObject([
      { result: 'FAILED', reason: isStored ? 'no such file: “ä”' : 'no such file: ???' },
      { result: 'SUCCEEDED' },
    ]);
    if (!isStored) expect(runs[0]!.error).toMatchObject({ message: 'no such file: ???' });
    await app.close();
  },
);
