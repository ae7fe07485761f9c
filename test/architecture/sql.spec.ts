import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { sourceFiles, type SourceFile } from './source.js';

// SQL is written in src/database and in *.sql.ts, next to the code that calls it. Only src/lifecycle and the functions it
// calls change the state of a job.

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

const isSqlFile = (path: string) => path.startsWith('src/database/') || path.endsWith('.sql.ts');
const mayChangeJobs = (path: string) =>
  /^src\/(lifecycle\/.*\.sql\.ts|database\/migrations\/.*)$/.test(path);

it('SQL is in src/database and in *.sql.ts', () => {
  const speakers = source.filter(saying(SQL));
  expect(speakers.length).toBeGreaterThan(5);
  expect(paths(speakers).filter((path) => !isSqlFile(path))).toEqual([]);
});

it("the engine's statements use the engine's own connections", () => {
  // The host's DataSource is used to hear of commits, and to make connections from its settings.
  const MAY = [
    'membership/heartbeat-host',
    'notifications/listening-connection',
    'notifications/notify.sql',
  ];
  const others = source
    .filter(({ path }) => /^src\/(lifecycle|notifications|membership|control|node)\//.test(path))
    .filter(({ path }) =>
      /\bdataSource\b/.test(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')),
    );
  expect(paths(others)).toEqual(MAY.map((name) => `src/${name}.ts`));
});

it('only the lifecycle changes a status', () => {
  const changing = source.filter(saying(/\bSET\b(?:(?!\b(?:FROM|WHERE)\b)[^])*\bstatus\s*=/));
  expect(changing.length).toBeGreaterThan(2);
  expect(paths(changing).filter((path) => !mayChangeJobs(path))).toEqual([]);
});

it('only the lifecycle inserts and deletes entries and runs', () => {
  const TABLES = String.raw`\$\{(?:\w+\.)?(?:entries|runs)\}`;
  const changing = sourceFiles('src')
    .map(({ path }) => path)
    .filter((path) =>
      new RegExp(`(INSERT INTO|DELETE FROM) ${TABLES}`).test(
        readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8'),
      ),
    );
  expect(changing.length).toBeGreaterThan(2);
  expect(changing.filter((path) => !mayChangeJobs(path))).toEqual([]);
});
