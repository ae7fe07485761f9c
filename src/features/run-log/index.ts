import { isSecret } from '../../context/envelope.js';
import type { EngineContext } from '../../database/engine-context.js';
import { RunReport } from './run-report.js';
import { RunReportWriter, type Watchers } from './run-report-writer.js';

interface Run {
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
}

interface Parts extends EngineContext {
  processes: {
    find(jobRunId: string): {
      isDecided: boolean;
      isFenced: boolean;
      run: { jobContext: unknown };
    } | null;
  };
  handlers: { get(code: string): { traits: { encrypt: boolean } } | undefined };
  watcher: Watchers & { onWatched(listener: (jobRunIdentifier: string) => void): void };
}

/**
 * Collects progress, log lines and output of this node's runs from its events, and has them written. It listens to the
 * ends of runs only after a handler has reported something. @returns a function that stops it
 */
export function collectRunReports(bildad: Parts): () => Promise<void> {
  const { events, settings, processes, handlers, watcher } = bildad;
  const reports = new Map<string, RunReport>();
  /** Runs that were ended by a call while their handler still works. */
  const endedByCall = new Set<string>();
  const writer = new RunReportWriter(bildad, watcher);
  const offs: (() => void)[] = [];
  let listensToEnds = false;

  /** Undefined if the run has ended: late reports of its handler are ignored. */
  const reportOf = (run: Run): RunReport | undefined => {
    const known = reports.get(run.jobRunId);
    if (known) return known;
    const process = processes.find(run.jobRunId);
    if (!process || process.isDecided || process.isFenced) return undefined;
    if (endedByCall.has(run.jobRunId)) return undefined;
    listenToEnds();
    const secret = isSecret(process.run, handlers.get(run.templateCode)?.traits);
    const report = new RunReport(run.jobRunId, run.jobRunIdentifier, secret, settings.logs);
    reports.set(run.jobRunId, report);
    return report;
  };
  const end = (jobRunId: string, succeeded: boolean) => {
    const handlerWorks = processes.find(jobRunId)?.isDecided === false;
    if (handlerWorks) endedByCall.add(jobRunId);
    else endedByCall.delete(jobRunId);
    const report = reports.get(jobRunId);
    if (!report) return;
    reports.delete(jobRunId);
    report.end(succeeded);
    writer.addEnded(report);
  };
  const listenToEnds = () => {
    if (listensToEnds) return;
    listensToEnds = true;
    offs.push(
      events.on('run.finished', ({ jobRunId, outcome }) => end(jobRunId, outcome === 'completed')),
      events.on('run.finishRejected', ({ jobRunId }) => end(jobRunId, false)),
      events.on('process.ended', ({ jobRunId }) => end(jobRunId, false)),
    );
  };

  offs.push(
    events.on('run.progress', (progress) => {
      const report = reportOf(progress);
      report?.setProgress(progress.fraction, progress.message);
      if (report) writer.add(report);
    }),
    events.on('run.log', (line) => {
      const isWatched = watcher.isWatched(line.jobRunIdentifier);
      if (settings.logs.keep === 'never' && !isWatched) return;
      const report = reportOf(line);
      report?.addLine(line.level, line.message, isWatched);
      if (report && isWatched) writer.add(report);
    }),
    events.on('run.stream', (output) => {
      const report = reportOf(output);
      report?.addChunk(output.chunk);
      if (report) writer.add(report);
    }),
  );
  watcher.onWatched((jobRunIdentifier) => {
    for (const report of reports.values())
      if (report.jobRunIdentifier === jobRunIdentifier) writer.add(report);
  });
  return async () => {
    for (const off of offs) off();
    await writer.close();
  };
}
