import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { ExecutionLogger } from '../../job/job-execution.js';
import type { HostedWork } from '../../isolation/job-host.js';
import type { JobProcess } from './job-process.js';
import { identityOf, progressed, streamed } from './execution.js';

interface Hearing {
  events: JobEvents;
  loggerFor: (run: ClaimedRun) => ExecutionLogger;
  /** The handler runs. */
  begin: () => void;
}

/** What a handler returned, as its host has it. */
export const outputOf = (json: string | null) =>
  json === null ? undefined : (JSON.parse(json) as unknown);

/** Hears what a host tells of a run, and tells it here as if the handler had been here. */
export function hearing(
  process: JobProcess,
  { events, loggerFor, begin }: Hearing,
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
        process.written = { output: outputOf(news.output) };
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
