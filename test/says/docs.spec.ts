import { readFile } from 'node:fs/promises';
import { beforeAll, expect, it } from 'vitest';
import { complaints } from '../types/compiler.js';

// What the pages show compiles: the pieces of each are one file.

const PAGES = ['handlers', 'pipeline', 'secrets', 'deploy', 'events', 'telemetry'];

let said: Record<string, string[]>;
beforeAll(async () => {
  const texts = await Promise.all(
    PAGES.map(async (page) => {
      const url = new URL(`../../docs/${page}.md`, import.meta.url);
      const text = await readFile(url, 'utf8');
      const pieces = [...text.matchAll(/```ts\n([\s\S]*?)```/g)];
      return [page, pieces.map(([, code]) => code).join('\n')] as const;
    }),
  );
  said = complaints(Object.fromEntries(texts));
}, 60_000);

it.each(PAGES)('docs/%s.md', (page) => {
  expect(said[page]).toEqual([]);
});
