import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { ExecutionLogger } from '../../job/job-handler.js';
import type { HostedWork } from '../../isolation/job-host.js';
import type { JobProcess } from './job-process.js';
import { identityOf, progressed, streamed } from './execution.js';

interface HostEventTargets {
  events: JobEvents;
  loggerFor: (run: ClaimedRun) => ExecutionLogger;
  /** Called when the handler starts. */
  begin: () => void;
}

/** The return value of a handler, as its host sent it. */
export const parseOutput = (json: string | null) =>
  json === null ? undefined : (JSON.parse(json) as unknown);

/** @returns a function that repeats the events of a run in a host here, as if its handler ran here */
export function forwardHostEvents(
  process: JobProcess,
  { events, loggerFor, begin }: HostEventTargets,
): HostedWork['heard'] {
  const { run } = process;
  return (news) => {
    switch (news.news) {
      case 'log':
        return loggerFor(run)[news.level](news.message);
      case 'started':
        events.emit('run.started', identityOf(run));
        return begin();
      case 'stream':
        return streamed(run, events, news.chunk);
      case 'written':
        process.written = { output: parseOutput(news.output) };
        return;
      case 'progress': {
        const { fraction, message } = news;
        progressed(process, events, {
          fraction,
          ...(message !== undefined && { message }),
        });
      }
    }
  };
}
