import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runSample, type Ended } from './sample.js';

// The sample runs on a folder of unusual files. Its output must match the files, also on a second
// start.

const isRoot = process.getuid?.() === 0;
const binary = Buffer.from([0x7f, 0x45, 0x00, 0xff, 0x0a]);
const text = 'apple apple banana\nlast line without end';
// Longer than the chunks in which a file is read, so that words cross the chunk borders.
const long = 'penguin\n'.repeat(20_000);
const latin1 = Buffer.from('caf\xe9s\n', 'latin1');

let folder: string;
let database: TestDatabase;
let runs: Ended[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bildad-sample-'));
  const deep = join(folder, 'a', 'b');
  await mkdir(deep, { recursive: true });
  await mkdir(join(folder, 'node_modules'));
  await Promise.all([
    writeFile(join(folder, 'empty'), ''),
    writeFile(join(folder, 'binary.bin'), binary),
    writeFile(join(folder, 'plain.txt'), text),
    writeFile(join(deep, 'long.txt'), long),
    writeFile(join(deep, 'latin1.txt'), latin1),
    writeFile(join(folder, 'node_modules', 'left-out.js'), 'no'),
    writeFile(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xe9, 0x31])]), 'odd name'),
    writeFile(join(folder, 'line\nbreak'), 'odd name'),
    writeFile(join(folder, 'secret'), 'secret').then(() => chmod(join(folder, 'secret'), 0)),
    symlink('..', join(deep, 'loop')),
    symlink('/no/such', join(deep, 'dangling')),
  ]);
  database = await createDatabase();
  runs = [];
  for (let n = 0; n < 2; n++)
    runs.push(
      await runSample(['--once', '--folder', folder], {
        DATABASE_URL: database.url,
      }),
    );
});
afterAll(async () => {
  await database.drop();
  await rm(folder, { recursive: true });
});

const FILES = 8;
const bytes = text.length + long.length + binary.length + latin1.length + 8 + 8;

describe.for([0, 1])('start number %i on the same database', (n) => {
  it('the last line has the correct totals', () => {
    const { code, stdout } = runs[n]!;
    expect(code).toBe(0);
    expect(JSON.parse(stdout.trimEnd().split('\n').at(-1)!)).toEqual({
      jobs: FILES + 3,
      runs: { succeeded: FILES + 2, failed: 3 },
      retries: 2,
      killed: 1,
      refused: 1,
      prioritiesRespected: true,
      filesIndexed: isRoot ? FILES : FILES - 1,
      bytes: bytes + (isRoot ? 6 : 0),
      jobsPerSecond: expect.any(Number),
      waitP50Ms: expect.any(Number),
      waitP99Ms: expect.any(Number),
      elapsedMs: expect.any(Number),
    });
  });

  it('the output shows the killed job, the violations and the highlights', () => {
    const { stdout } = runs[n]!;
    expect(stdout).toMatch(/SAMPLE_RUNAWAY: "Timeout" after 1\d{3} ms/);
    expect(stdout).toContain('path must be a string');
    expect(stdout).toContain('20000  penguin');
    expect(stdout).toContain(`${long.length}  a/b/long.txt`);
    expect(stdout).not.toContain('line\nbreak');
  });
});

it('the findings are stored in a table of the sample', async () => {
  const rows = await database.sql(
    `SELECT path, kind, bytes::int, lines, words, sha256, problem FROM bildad_sample_files
     WHERE scan = (SELECT scan FROM bildad_sample_files LIMIT 1) ORDER BY path COLLATE "C"`,
  );
  const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex');
  const of = (
    path: string,
    content: string | Buffer,
    facts: { kind?: string; lines: number; words: number },
  ) => ({
    path,
    kind: 'text',
    bytes: content.length,
    sha256: sha256(content),
    problem: null,
    ...facts,
  });
  expect(rows).toEqual([
    of('a/b/latin1.txt', latin1, { lines: 1, words: 1 }),
    of('a/b/long.txt', long, { lines: 20_000, words: 20_000 }),
    of('binary.bin', binary, { kind: 'binary', lines: 0, words: 0 }),
    of('empty', '', { lines: 0, words: 0 }),
    of('line\nbreak', 'odd name', { lines: 1, words: 2 }),
    of('plain.txt', text, { lines: 2, words: 7 }),
    isRoot
      ? of('secret', 'secret', { lines: 1, words: 1 })
      : {
          path: 'secret',
          kind: 'unreadable',
          bytes: 0,
          lines: 0,
          words: 0,
          sha256: null,
          problem: 'permission denied',
        },
    of('\u{FFFD}1', 'odd name', { lines: 1, words: 2 }),
  ]);
});

it('the queue is empty at the end', async () => {
  expect(await database.sql('SELECT * FROM bildad.job_queue_entries')).toEqual([]);
});
