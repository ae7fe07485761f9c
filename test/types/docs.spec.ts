import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { complaints } from './compiler.js';

// The examples of docs/transactions.md compile as they are pasted, each as a file of its own.

const PAGE = new URL('../../docs/transactions.md', import.meta.url);
const NAMES = ['first', 'helpers', 'byHand', 'waiting'];

it('the examples of docs/transactions.md', async () => {
  const examples = [...(await readFile(PAGE, 'utf8')).matchAll(/```ts\n([\s\S]*?)```/g)].map(
    ([, code]) => code!,
  );
  expect(examples).toHaveLength(NAMES.length);
  const texts = Object.fromEntries(examples.map((code, index) => [NAMES[index]!, code]));
  expect(complaints(texts)).toEqual(Object.fromEntries(NAMES.map((name) => [name, []])));
});
