import { beforeAll, expect, it } from 'vitest';
import { compileErrors } from './compiler.js';

// The parameter of a listener is checked against its event.

const listening = (decorator: string, parameter: string) => `
import { OnJobEvent, BildadJob, type JobEventMap, type JobUpdate } from 'nestjs-bildad';
@BildadJob({ code: 'X' }) class XJob { runJob() {} }
export class Listening { ${decorator} listen(${parameter}): void {} }
export type Unused = [JobEventMap, JobUpdate, XJob];`;

const TEXTS = {
  whole: listening(
    `@OnJobEvent('run.failed', { code: XJob, from: 'cluster' })`,
    `payload: JobEventMap['run.failed'][0]`,
  ),
  part: listening(`@OnJobEvent('engine.pass')`, `{ started }: { started: number }`),
  nothing: listening(`@OnJobEvent('node.lost')`, ''),
  two: listening(
    `@OnJobEvent('run.killed') @OnJobEvent('run.expired')`,
    `{ retry }: { retry: number }`,
  ),
  wrongType: listening(`@OnJobEvent('run.killed')`, `{ retry }: { retry: string }`),
  wrongEvent: listening(`@OnJobEvent('run.done')`, ''),
  otherEvent: listening(`@OnJobEvent('node.lost')`, `payload: JobEventMap['run.failed'][0]`),
  wrongOption: listening(`@OnJobEvent('run.killed', { from: 'mars' })`, ''),
};

let errors: Record<string, string[]>;
beforeAll(() => {
  errors = compileErrors(TEXTS);
}, 60_000);

it.each(['whole', 'part', 'nothing', 'two'])('%s compiles', (name) => {
  expect(errors[name]).toEqual([]);
});

it.each(['wrongType', 'wrongEvent', 'otherEvent', 'wrongOption'])('%s does not compile', (name) => {
  expect(errors[name]!.length).toBeGreaterThan(0);
});
