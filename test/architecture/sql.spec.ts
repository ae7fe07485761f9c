import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { sourceFiles, type SourceFile } from './source.js';

// All SQL is in src/store, and few of its files change what a job's state is: enqueue, claim and finish, with the
// functions they call, and what writes a run's row that a claim deferred.

const SQL =
  /\b(SELECT\s|INSERT INTO|UPDATE\s+\S+\s+(\w+\s+)?SET|DELETE FROM|CREATE (TABLE|SCHEMA|INDEX)|ALTER TABLE|DROP (TABLE|SCHEMA)|WITH \w+ AS|RETURNING|SET LOCAL|FOR UPDATE|pg_\w+\()/;
/** Words for people that mention SQL, as the hints on missing rights do. */
const HINTS = /GRANT/;

const source = sourceFiles('src');
const paths = (files: SourceFile[]) => files.map(({ path }) => path);
const saying =
  (pattern: RegExp) =>
  ({ texts }: SourceFile) =>
    texts.some((text) => pattern.test(text) && !HINTS.test(text));

it('only src/store speaks SQL', () => {
  const speakers = source.filter(saying(SQL));
  expect(speakers.length).toBeGreaterThan(5);
  expect(paths(speakers).filter((path) => !path.startsWith('src/store/'))).toEqual([]);
});

it("the engine's statements go over connections of its own", () => {
  // Where the host's DataSource is for: to be told of commits, and as what connections are made from.
  const MAY = ['engine/listener', 'engine/pulse/host', 'engine/wake-ups', 'life/store'];
  const others = source
    .filter(({ path }) => /^src\/(life|engine)\//.test(path))
    .filter(({ path }) =>
      /\bdataSource\b/.test(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')),
    );
  expect(paths(others)).toEqual(MAY.map((name) => `src/${name}.ts`));
});

it('only enqueue, claim, finish and quarantine change a status', () => {
  const changing = source.filter(saying(/\bSET\b(?:(?!\b(?:FROM|WHERE)\b)[^])*\bstatus\s*=/));
  expect(paths(changing)).toEqual([
    'src/lifecycle/claim/claim.sql.ts',
    'src/lifecycle/run/late-run-rows.sql.ts',
    'src/lifecycle/finish/finish.sql.ts',
    'src/database/migrations/002-hot-path/claim.ts',
    'src/database/migrations/002-hot-path/end.ts',
    'src/database/migrations/003-claims-by-kind.ts',
    'src/lifecycle/claim/quarantine.sql.ts',
  ]);
});

it('only enqueue and claim make what has a status, only they and finish delete it', () => {
  const tables = '\\?'; // Names are put in.
  const making = source.filter(saying(new RegExp(`INSERT INTO ${tables}`)));
  const deleting = source.filter(saying(new RegExp(`DELETE FROM ${tables}`)));
  expect(paths(making)).toEqual([
    'src/lifecycle/claim/claim.sql.ts',
    'src/database/job-config.sql.ts',
    'src/lifecycle/run/late-run-rows.sql.ts',
    'src/database/migrations/002-hot-path/claim.ts',
    'src/database/migrations/002-hot-path/end-deferred.ts',
    'src/database/migrations/002-hot-path/enqueue.ts',
    'src/database/migrations/003-claims-by-kind.ts',
    'src/database/migrations/008-identity/enqueue.ts',
    'src/database/migrations/apply.ts',
    'src/membership/node.sql.ts',
    'src/features/run-log/run-log.sql.ts',
    'src/lifecycle/enqueue/start-before.sql.ts',
    'src/lifecycle/templates/template.sql.ts',
  ]);
  // Of notes: what handlers said, beside the runs.
  // A missed entry leaves a run that was never started. Of identity: rows of keys, not of jobs. A claim that is given back takes the run with it that it made; enqueue takes its own entry back where a run of the name turns up.
  expect(paths(deleting)).toEqual([
    'src/lifecycle/claim/claim.sql.ts',
    'src/lifecycle/enqueue/enqueue.sql.ts',
    'src/database/migrations/002-hot-path/end-deferred.ts',
    'src/database/migrations/002-hot-path/end.ts',
    'src/database/migrations/002-hot-path/enqueue.ts',
    'src/database/migrations/008-identity/enqueue.ts',
    'src/database/migrations/008-identity/keys.ts',
    'src/membership/node.sql.ts',
    'src/features/run-log/run-log.sql.ts',
    'src/lifecycle/enqueue/start-before.sql.ts',
    'src/lifecycle/templates/template.sql.ts',
  ]);
});
