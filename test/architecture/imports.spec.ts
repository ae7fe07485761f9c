import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { resolved, sourceFiles } from './source.js';

// Rooms, and who may know whom: the table of docs/architecture.md, held by reading the imports.

const MAY_IMPORT: Record<string, readonly string[]> = {
  model: [],
  policy: ['model'],
  store: ['model'],
  runner: ['model'],
  life: ['model', 'policy', 'store', 'runner'],
  engine: ['model', 'policy', 'store', 'runner', 'life'],
  nest: ['model', 'policy', 'store', 'runner', 'life', 'engine', 'features'],
};
/** What a room needs of the world beside Node. Whatever is not here has a reason to be somewhere else. */
const PACKAGES: Record<string, readonly string[]> = {
  // TypeORM's types: a handler is given an EntityManager.
  model: ['ms', 'typeorm', 'uuid'],
  policy: [
    'ajv',
    'ajv-formats',
    'class-transformer',
    'class-validator',
    'class-validator-jsonschema',
  ],
  // `pg` where there is no DataSource: in the thread that beats.
  store: ['pg', 'typeorm'],
  runner: [],
  life: ['typeorm', 'uuid'],
  engine: [],
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

it('every folder of src is a room of the table, or a feature', () => {
  const rooms = new Set(source.map(({ path }) => roomOf(path)));
  rooms.delete(undefined);
  rooms.delete('features');
  expect(rooms).toEqual(new Set(Object.keys(MAY_IMPORT)));
});

describe.each(Object.entries(MAY_IMPORT))('src/%s', (room, mayImport) => {
  const files = source.filter(({ path }) => roomOf(path) === room);

  it(`knows of ours ${mayImport.join(', ') || 'nothing'}`, () => {
    const strangers = files.flatMap(({ path, imports }) =>
      imports
        .filter(isRelative)
        .map((specifier) => resolved(path, specifier))
        .filter((target) => ![room, ...mayImport].includes(roomOf(target)!))
        .map((target) => `${path} imports ${target}`),
    );
    expect(files).not.toEqual([]);
    expect(strangers).toEqual([]);
  });

  it(`needs of the world ${PACKAGES[room]!.join(', ') || 'nothing'}`, () => {
    const strangers = files.flatMap(({ path, imports }) =>
      imports
        .filter(
          (specifier) =>
            !isRelative(specifier) &&
            !specifier.startsWith('node:') &&
            !PACKAGES[room]!.includes(packageOf(specifier)),
        )
        .map((specifier) => `${path} imports ${specifier}`),
    );
    expect(strangers).toEqual([]);
  });
});

it('features know model, the seams, life, and never each other', () => {
  const strangers = source
    .filter(({ path }) => roomOf(path) === 'features')
    .flatMap(({ path, imports }) => {
      const own = path.split('/').slice(0, 3).join('/');
      return imports
        .filter(isRelative)
        .map((specifier) => resolved(path, specifier))
        .filter(
          (target) =>
            !target.startsWith(`${own}/`) && !['model', 'life', 'store'].includes(roomOf(target)!),
        )
        .map((target) => `${path} imports ${target}`);
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
