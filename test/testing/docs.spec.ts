import { readFile } from 'node:fs/promises';
import { beforeAll, expect, it } from 'vitest';
import { compileErrors } from '../types/compiler.js';

// docs/testing.md quotes the example that vitest and jest run, and its other examples compile.

const read = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8');
const QUOTED = ['app.ts', 'global-setup.ts', 'accounts.spec.ts'];

let pieces: string[];
beforeAll(async () => {
  const page = await read('docs/testing.md');
  pieces = Array.from(page.matchAll(/```ts\n([\s\S]*?)```/g), ([, code]) => code!);
});

it.each(QUOTED)('the page quotes %s', async (name) => {
  const file = await read(`test/testing/example/${name}`);
  expect(pieces).toContain(`// ${name}\n${file}`);
});

it('the page lists the changes for jest', async () => {
  const imports = pieces.find((code) => code.includes('@jest/globals'))!;
  const asJest = async (name: string) =>
    (await read(`test/testing/example/${name}`))
      .replace(/import \{[^}]*\} from '(?:vitest|@jest\/globals)';\n/, '')
      .replace("testing/vitest'", "testing/jest'")
      .replaceAll(/\bvi\./g, 'jest.')
      .replaceAll(/^\n/gm, '');
  const jest = await asJest('accounts.jest.ts');
  expect(await asJest('accounts.spec.ts')).toBe(jest);
  expect(imports).toContain("import 'nestjs-bildad/testing/jest';");
});

it('the other examples compile', () => {
  const others = pieces.filter((code) => !/^\/\/ [\w.-]+\.ts\b/.test(code));
  expect(others.length).toBeGreaterThan(3);
  const texts = Object.fromEntries(others.map((code, index) => [`piece${index}`, code]));
  expect(compileErrors(texts)).toEqual(
    Object.fromEntries(Object.keys(texts).map((name) => [name, []])),
  );
}, 60_000);
