import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { resolved, sourceFiles } from './source.js';

// The rooms of CONTRIBUTING.md, and which rooms each may import.

const ROOMS = [
  'job',
  'concurrency',
  'options',
  'context',
  'database',
  'notifications',
  'isolation',
  'lifecycle',
  'membership',
  'control',
  'node',
  'nest',
] as const;
/** A room may import every room before it in the list, except these. */
const MUST_NOT_IMPORT: Record<string, readonly string[]> = { concurrency: ['job'] };
/** Features may import these, and never one another. */
const FEATURES_MAY_IMPORT: readonly string[] = ROOMS.slice(0, ROOMS.indexOf('membership'));
/** Imports that break the order. The list may only shrink. */
const EXCEPTIONS = new Set<string>([
  'src/isolation/host-protocol.ts imports src/lifecycle/run/job-process.ts',
]);
/** npm packages that a room may use, beside Node's own modules. */
const PACKAGES: Record<string, readonly string[]> = {
  // TypeORM's types: a handler is given an EntityManager.
  job: ['ms', 'typeorm', 'uuid'],
  options: ['typeorm'],
  context: [
    'ajv',
    'ajv-formats',
    'class-transformer',
    'class-validator',
    'class-validator-jsonschema',
  ],
  // `pg` where there is no DataSource: in the heartbeat thread.
  database: ['pg', 'typeorm'],
  notifications: ['typeorm'],
  lifecycle: ['typeorm', 'uuid'],
  nest: [
    '@nestjs/common',
    '@nestjs/core',
    '@nestjs/schedule',
    '@nestjs/typeorm',
    // What Nest sends server-sent events from.
    'rxjs',
    'typeorm',
  ],
};

/** What package.json exports. */
const PUBLIC = Object.keys(
  (
    JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      exports: object;
    }
  ).exports,
).map((path) => path.replace(/^\./, 'nestjs-bildad'));

const source = sourceFiles('src');
const roomOf = (path: string) => /^src\/([^/]+)\//.exec(path)?.[1];
const isRelative = (specifier: string) => specifier.startsWith('.');
const packageOf = (specifier: string) =>
  specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');

it('every folder of src is a room, or a feature', () => {
  const rooms = new Set(source.map(({ path }) => roomOf(path)));
  rooms.delete(undefined);
  rooms.delete('features');
  expect(rooms).toEqual(new Set(ROOMS));
});

describe.each(ROOMS)('src/%s', (room) => {
  const files = source.filter(({ path }) => roomOf(path) === room);
  const forbidden = MUST_NOT_IMPORT[room] ?? [];
  const mayImport: readonly string[] =
    room === 'nest'
      ? [...ROOMS, 'features']
      : ROOMS.slice(0, ROOMS.indexOf(room) + 1).filter((other) => !forbidden.includes(other));

  it('imports only rooms below it', () => {
    expect(files).not.toEqual([]);
    expect(importsOutside(files, mayImport)).toEqual([]);
  });

  it('uses only the npm packages listed for it', () => {
    const strangers = files.flatMap(({ path, imports }) =>
      imports
        .filter(
          (specifier) =>
            !isRelative(specifier) &&
            !specifier.startsWith('node:') &&
            !PACKAGES[room]?.includes(packageOf(specifier)),
        )
        .map((specifier) => `${path} imports ${specifier}`),
    );
    expect(strangers).toEqual([]);
  });
});

function importsOutside(files: typeof source, rooms: readonly string[], folder = ''): string[] {
  return files.flatMap(({ path, imports }) =>
    imports
      .filter(isRelative)
      .map((specifier) => resolved(path, specifier))
      .filter(
        (target) => !rooms.includes(roomOf(target)!) && !(folder && target.startsWith(folder)),
      )
      .map((target) => `${path} imports ${target}`)
      .filter((line) => !EXCEPTIONS.has(line)),
  );
}

it('a feature imports the rooms below it, and never another feature', () => {
  const strangers = source
    .filter(({ path }) => roomOf(path) === 'features')
    .flatMap((file) => {
      const folder = `${file.path.split('/').slice(0, 3).join('/')}/`;
      return importsOutside([file], FEATURES_MAY_IMPORT, folder);
    });
  expect(strangers).toEqual([]);
});

const USERS = ['libs', 'sample-app', 'bench'].filter((folder) =>
  existsSync(new URL(`../../${folder}`, import.meta.url)),
);

/** Explains the store's own statements, which the package does not export. */
const EXEMPT = 'bench/plans.ts';

it.each(USERS)('%s uses the package as a user does', (folder) => {
  const files = sourceFiles(folder).filter(({ path }) => path !== EXEMPT);
  const strangers = files.flatMap(({ path, imports }) =>
    imports
      .filter((specifier) =>
        isRelative(specifier)
          ? !inside(folder, path, resolved(path, specifier))
          : packageOf(specifier) === 'nestjs-bildad' && !PUBLIC.includes(specifier),
      )
      .map((specifier) => `${path} imports ${specifier}`),
  );
  expect(strangers).toEqual([]);
});

/** One lib does not reach into another. */
function inside(folder: string, from: string, target: string): boolean {
  const depth = folder === 'libs' ? 2 : 1;
  const home = from.split('/').slice(0, depth).join('/');
  return target.startsWith(`${home}/`);
}

it('the core works without its libs', () => {
  const strangers = source.flatMap(({ path, imports }) =>
    imports
      .filter((specifier) => packageOf(specifier) === 'nestjs-bildad')
      .map((specifier) => `${path} imports ${specifier}`),
  );
  expect(strangers).toEqual([]);
});

it('no files import one another in a circle', () => {
  const graph = new Map(
    source.map(({ path, imports }) => [
      path,
      imports.filter(isRelative).map((specifier) => resolved(path, specifier)),
    ]),
  );
  expect(circles(graph)).toEqual([]);
});

function circles(graph: Map<string, string[]>): string[] {
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, trail: string[]): void => {
    if (trail.includes(path)) {
      found.push([...trail.slice(trail.indexOf(path)), path].join(' > '));
      return;
    }
    if (done.has(path)) return;
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return found;
}
