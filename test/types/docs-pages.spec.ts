import { readFile } from 'node:fs/promises';
import { beforeAll, expect, it } from 'vitest';
import { compileErrors } from './compiler.js';

// The TypeScript examples of each docs page compile as one file.

const PAGES = ['handlers', 'pipeline', 'secrets', 'deploy', 'events', 'telemetry'];

let errors: Record<string, string[]>;
beforeAll(async () => {
  const texts = await Promise.all(
    PAGES.map(async (page) => {
      const url = new URL(`../../docs/${page}.md`, import.meta.url);
      const text = await readFile(url, 'utf8');
      const pieces = [...text.matchAll(/```ts\n([\s\S]*?)```/g)];
      return [page, pieces.map(([, code]) => code).join('\n')] as const;
    }),
  );
  errors = compileErrors(Object.fromEntries(texts));
}, 60_000);

it.each(PAGES)('the examples of docs/%s.md compile', (page) => {
  expect(errors[page]).toEqual([]);
});
