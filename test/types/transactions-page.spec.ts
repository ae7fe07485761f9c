import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { compileErrors } from './compiler.js';

// The examples of docs/transactions.md compile as they are, each in its own file.

const PAGE = new URL('../../docs/transactions.md', import.meta.url);
const NAMES = ['first', 'helpers', 'byHand', 'waiting'];

it('the examples of docs/transactions.md compile', async () => {
  const examples = [...(await readFile(PAGE, 'utf8')).matchAll(/```ts\n([\s\S]*?)```/g)].map(
    ([, code]) => code!,
  );
  expect(examples).toHaveLength(NAMES.length);
  const texts = Object.fromEntries(examples.map((code, index) => [NAMES[index]!, code]));
  expect(compileErrors(texts)).toEqual(Object.fromEntries(NAMES.map((name) => [name, []])));
});
