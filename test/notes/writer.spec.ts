import { afterEach, beforeEach, expect, it } from 'vitest';
import { RunNotes } from '../../src/features/run-log/run-log.js';
import { NotesWriter } from '../../src/features/run-log/run-log-writer.js';
import { readLogs } from '../../src/options/settings.js';
import { runAfter, waitAtMost } from '../../src/concurrency/timers.js';
import { bootApp, type TestApp } from '../support/app.js';

// What is not written any more is not held either.

let bildad: TestApp;
let isWatched: boolean;
let writer: NotesWriter;
beforeEach(async () => {
  bildad = await bootApp();
  isWatched = true;
  const watcher = { isWatched: () => isWatched, signalChange: () => undefined };
  const { store, events } = (bildad.engine as any).bildad;
  writer = new NotesWriter(store, events, watcher, { runAfter, waitAtMost });
});
afterEach(async () => {
  await writer.close();
  await bildad.close();
});

const held = () => (writer as any).dirty.size as number;

it('an ended run whose watcher left before its tape was written is let go', async () => {
  const run = new RunNotes('7', 'left', false, readLogs({}, 'logs'));
  run.addChunk('seen by nobody');
  run.end(true);
  writer.last(run);
  expect(held()).toBe(1);
  isWatched = false;
  await expect.poll(held).toBe(0);
  expect(await bildad.sql('SELECT 1 FROM bildad.job_run_notes')).toEqual([]);
});
