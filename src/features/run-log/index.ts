import type { Store } from '../../database/store.js';
import { isSecret } from '../../context/envelope.js';
import type { JobEvents } from '../../job/events.js';
import type { LogSettings } from '../../options/settings.js';
import { RunNotes } from './run-log.js';
import { NotesWriter, type Clock } from './run-log-writer.js';

interface Run {
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
}

/** What it needs of an engine. */
interface Parts {
  store: Store;
  events: JobEvents;
  clock: Clock;
  settings: { logs: LogSettings };
  processes: {
    find(jobRunId: string): {
      isDecided: boolean;
      fenced: boolean;
      run: { jobContext: unknown };
    } | null;
  };
  handlers: { get(code: string): { traits: { encrypt: boolean } } | undefined };
  watcher: {
    isWatched(identifier: string): boolean;
    signalChange(identifier: string): void;
    onWatched(listener: (identifier: string) => void): void;
  };
}

/**
 * Progress, lines and output of runs, as this node's events tell of them: kept in memory, and written apart from the path
 * of jobs. Of jobs that say nothing it hears nothing, until the first one says something.
 */
export function notes({
  store,
  events,
  clock,
  settings: { logs },
  processes,
  handlers,
  watcher,
}: Parts): () => Promise<void> {
  const runs = new Map<string, RunNotes>();
  /** Runs that somebody closed while their process goes on: until that ends. */
  const closed = new Set<string>();
  const writer = new NotesWriter(store, events, watcher, clock);
  const offs: (() => void)[] = [];
  let hearsEnds = false;

  const of = (run: Run): RunNotes | undefined => {
    const known = runs.get(run.jobRunId);
    if (known) return known;
    const process = processes.find(run.jobRunId);
    // What is said when its run is over is nobody's.
    if (!process || process.isDecided || process.fenced) return undefined;
    if (closed.has(run.jobRunId)) return undefined;
    hearEnds();
    const { traits } = handlers.get(run.templateCode) ?? {};
    const made = new RunNotes(
      run.jobRunId,
      run.jobRunIdentifier,
      isSecret(process.run, traits),
      logs,
    );
    runs.set(run.jobRunId, made);
    return made;
  };
  const end = (jobRunId: string, succeeded: boolean) => {
    const goesOn = processes.find(jobRunId)?.isDecided === false;
    if (goesOn) closed.add(jobRunId);
    else closed.delete(jobRunId);
    const run = runs.get(jobRunId);
    if (!run) return;
    runs.delete(jobRunId);
    run.end(succeeded);
    writer.last(run);
  };
  const hearEnds = () => {
    if (hearsEnds) return;
    hearsEnds = true;
    offs.push(
      events.on('run.finished', ({ jobRunId, outcome }) => end(jobRunId, outcome === 'completed')),
      events.on('run.finishRejected', ({ jobRunId }) => end(jobRunId, false)),
      events.on('process.ended', ({ jobRunId }) => end(jobRunId, false)),
    );
  };

  offs.push(
    events.on('run.progress', (told) => {
      const run = of(told);
      run?.setProgress(told.fraction, told.message);
      if (run) writer.note(run);
    }),
    events.on('run.log', (told) => {
      const isWatched = watcher.isWatched(told.jobRunIdentifier);
      if (logs.keep === 'never' && !isWatched) return;
      const run = of(told);
      run?.addLine(told.level, told.message, isWatched);
      if (run && isWatched) writer.note(run);
    }),
    events.on('run.stream', (told) => {
      const run = of(told);
      run?.addChunk(told.chunk);
      if (run) writer.note(run);
    }),
  );
  watcher.onWatched((identifier) => {
    for (const run of runs.values()) if (run.jobRunIdentifier === identifier) writer.note(run);
  });
  return async () => {
    for (const off of offs) off();
    await writer.close();
  };
}
