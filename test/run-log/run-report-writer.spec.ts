import { afterEach, beforeEach, expect, it } from 'vitest';
import { RunReport } from '../../src/features/run-log/run-report.js';
import { RunReportWriter } from '../../src/features/run-log/run-report-writer.js';
import { readLogs } from '../../src/options/settings.js';
import { bootApp, type TestApp } from '../support/app.js';

// A report that will never be written is released from memory.

let bildad: TestApp;
let isWatched: boolean;
let writer: RunReportWriter;
beforeEach(async () => {
  bildad = await bootApp();
  isWatched = true;
  const watcher = { isWatched: () => isWatched, signalChange: () => undefined };
  writer = new RunReportWriter((bildad.engine as any).bildad, watcher);
});
afterEach(async () => {
  await writer.close();
  await bildad.close();
});

const pendingReports = () => (writer as any).changed.size as number;

it('the report of an ended run is released when its watcher leaves before the output is written', async () => {
  const run = new RunReport('7', 'left', false, readLogs({}, 'logs'));
  run.addChunk('unwatched');
  run.end(true);
  writer.addEnded(run);
  expect(pendingReports()).toBe(1);
  isWatched = false;
  await expect.poll(pendingReports).toBe(0);
  expect(await bildad.sql('SELECT 1 FROM bildad.job_run_notes')).toEqual([]);
});
