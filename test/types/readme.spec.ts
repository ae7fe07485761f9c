import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { complaints } from './compiler.js';

// What a newcomer pastes compiles.

const README = new URL('../../README.md', import.meta.url);

it("the README's example and the calls below it", async () => {
  const [example, calls] = [
    ...(await readFile(README, 'utf8')).matchAll(/```ts\n([\s\S]*?)```/g),
  ].map(([, code]) => code!);
  const called = `
    import type { EntityManager } from 'typeorm';
    export async function calls(engine: JobEngineService, ctx: SendEmailContext, contexts: SendEmailContext[], manager: EntityManager) {
      ${calls}
    }`;
  expect(complaints({ readme: `${example}\n${called}` })).toEqual({
    readme: [],
  });
});
