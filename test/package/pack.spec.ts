import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEmptyDatabase } from '../support/database.js';

// The published package as a user uses it: a project with the files of the tarball and nothing else
// of this repository.

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);

interface Packed {
  filename: string;
  size: number;
  files: { path: string; mode: number }[];
}

const APP = `
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { IsString } from 'class-validator';
import { BildadJob, BildadModule, JobEngineService, type JobExecution, type JobHandler } from 'nestjs-bildad';

class GreetContext {
  @IsString() name!: string;
}

@BildadJob({ code: 'GREET', context: GreetContext, timeout: '1m' })
class GreetJob implements JobHandler<GreetContext, string> {
  async runJob({ name }: GreetContext, job: JobExecution): Promise<string> {
    return \`Hello \${name}, attempt \${job.attempt}\`;
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({ type: 'postgres', url: process.argv[2]!, autoLoadEntities: true }),
    BildadModule.forRoot(),
  ],
  providers: [GreetJob],
})
class AppModule {}

const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error', 'warn'] });
const engine = app.get(JobEngineService);
const { jobQueueEntry } = await engine.enqueueJobAndTriggerEngine(GreetJob, { name: 'Ada' });
const { result, output } = await engine.waitForJob(jobQueueEntry.jobRunIdentifier);
await app.close();
console.log(result, output);
`;

const COMMON_JS = `
import { BildadModule, InvalidJobContextError } from 'nestjs-bildad';
import { carryCls } from 'nestjs-bildad/cls';
import { startPostgres } from 'nestjs-bildad/testing';
const error = new InvalidJobContextError([{ path: 'a', message: 'b' }]);
console.log(BildadModule.name, error.code, typeof carryCls, typeof startPostgres, typeof require);
`;

let project: string;
let packed: Packed;

beforeAll(async () => {
  project = await realpath(await mkdtemp(join(tmpdir(), 'bildad-consumer-')));
  const { stdout } = await run(
    'npm',
    ['pack', '--ignore-scripts', '--json', `--pack-destination=${project}`],
    { cwd: ROOT },
  );
  [packed] = Object.values(JSON.parse(stdout) as Packed[]) as [Packed];
  const home = join(project, 'node_modules', 'nestjs-bildad');
  await mkdir(home, { recursive: true });
  await run('tar', ['-xzf', join(project, packed.filename), '--strip-components=1', '-C', home]);
  // The dependencies and peer dependencies that npm would install. They find their own dependencies
  // beside themselves.
  for (const name of [...declared(), '@types/node']) {
    const link = join(project, 'node_modules', name);
    await mkdir(dirname(link), { recursive: true });
    await symlink(join(ROOT, 'node_modules', name), link);
  }
  const files = {
    'package.json': JSON.stringify({ name: 'consumer', type: 'module' }),
    'tsconfig.json': JSON.stringify({
      compilerOptions: {
        module: 'nodenext',
        target: 'ES2023',
        strict: true,
        experimentalDecorators: true,
        emitDecoratorMetadata: true,
        types: ['node'],
      },
      files: ['app.ts', 'common.cts'],
    }),
    'app.ts': APP,
    'common.cts': COMMON_JS,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(project, name), text);
}, 60_000);

function declared(): string[] {
  const { dependencies, peerDependencies } = JSON.parse(
    readFileSync(join(ROOT, 'package.json'), 'utf8'),
  ) as Record<'dependencies' | 'peerDependencies', object>;
  return Object.keys({ ...dependencies, ...peerDependencies });
}

afterAll(() => rm(project, { recursive: true, force: true }));

it('the package is small and contains only files that are used', () => {
  const paths = packed.files.map(({ path }) => path);
  expect(packed.size).toBeLessThan(620_000);
  expect(paths).toEqual(
    expect.arrayContaining([
      'package.json',
      'CHANGELOG.md',
      'dist/src/index.js',
      'dist/src/index.d.ts',
      'dist/libs/testing/src/index.js',
      'dist/libs/testing/src/index.d.ts',
    ]),
  );
  const others = paths.filter(
    (path) => !/^(package\.json|[A-Z]+(\.md)?$|docs\/|dist\/(src|libs)\/)/.test(path),
  );
  expect(others).toEqual([]);
  expect(
    paths.filter(
      (path) => /\.(spec|tsx?$)|fixture|tsbuildinfo/.test(path) && !path.endsWith('.d.ts'),
    ),
  ).toEqual([]);
});

it('the package compiles in a strict project, and its declarations have no errors', async () => {
  const output = await run(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', project],
    { cwd: project },
  ).then(
    () => '',
    ({ stdout }: { stdout: string }) => stdout,
  );
  // Without skipLibCheck. Errors in other packages' declarations are ignored.
  const ours = output.split('\n').filter((line) => /^(app|common)\.|nestjs-bildad\//.test(line));
  expect(ours).toEqual([]);
}, 120_000);

it('an ESM app runs a job', async () => {
  const database = await createEmptyDatabase();
  const { stdout, stderr } = await run(process.execPath, ['app.js', database.url], {
    cwd: project,
  });
  expect({ stdout, stderr }).toEqual({
    stdout: 'SUCCEEDED Hello Ada, attempt 1\n',
    stderr: '',
  });
  await database.drop();
}, 60_000);

it('a CommonJS app loads the package', async () => {
  const { stdout } = await run(process.execPath, ['common.cjs'], {
    cwd: project,
  });
  expect(stdout).toBe('BildadModule INVALID_JOB_CONTEXT function function function\n');
}, 60_000);
