import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { compileErrors } from './compiler.js';

// The examples that a new user copies compile.

const README = new URL('../../README.md', import.meta.url);

it("the README's example and the calls below it compile", async () => {
  const [example, calls] = [
    ...(await readFile(README, 'utf8')).matchAll(/```ts\n([\s\S]*?)```/g),
  ].map(([, code]) => code!);
  const called = `
    import type { EntityManager } from 'typeorm';
    export async function calls(engine: JobEngineService, ctx: SendEmailContext, contexts: SendEmailContext[], manager: EntityManager) {
      ${calls}
    }`;
  expect(compileErrors({ readme: `${example}\n${called}` })).toEqual({
    readme: [],
  });
});

it('the examples of docs/identity.md compile', async () => {
  const [example, ...calls] = [
    ...(await readFile(new URL('../../docs/identity.md', import.meta.url), 'utf8')).matchAll(
      /```ts\n([\s\S]*?)```/g,
    ),
  ].map(([, code]) => code!);
  const text = `
    import { createReadStream } from 'node:fs';
    import { createInterface } from 'node:readline';
    import type { DataSource } from 'typeorm';
    import { DuplicateJobError } from 'nestjs-bildad';
    ${example}
    export async function calls(engine: JobEngineService, documentId: string, dataSource: DataSource) {
      ${calls.join('\n')}
    }`;
  expect(calls.length).toBeGreaterThan(3);
  expect(compileErrors({ identity: text })).toEqual({ identity: [] });
});
