import { Logger } from '@nestjs/common';
import type { JobEvents } from '../model/events.js';
import { nameOf } from '../policy/storable.js';
import { ConnectionLostError } from '../store/connection/lost.js';
import { databaseCode } from '../store/database-error.js';

const logger = new Logger('Bildad');
/** Two lines for each job: not put together for a log that does not want them. */
const debugging = () => Logger.isLevelEnabled('debug');

interface Run {
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
  retry: number;
}

const named = ({ templateCode, jobRunIdentifier, jobRunId, retry }: Run) =>
  `${templateCode} "${jobRunIdentifier}" (run ${jobRunId}, retry ${retry})`;

/**
 * Log lines are subscribers of events, one fact each. They carry identifiers and the class of an
 * error, never its message, which may quote the context; the message is in the run's `reason`.
 */
export function logEvents(events: JobEvents): void {
  events.on('run.started', (run) => {
    if (debugging()) logger.debug(`${named(run)} started`);
  });
  events.on('run.finished', (end) => {
    const { outcome, entry, errorName } = end;
    if (outcome === 'completed' && !debugging()) return;
    const line = `${named(end)} ${outcome}${errorName ? ` with ${errorName}` : ''}, entry ${entry}`;
    if (outcome === 'completed') logger.debug(line);
    else logger.warn(line);
  });
  events.on('run.finishLost', ({ outcome, ...run }) =>
    logger.warn(
      `${named(run)} ${outcome} too late: its run was closed before, nothing was changed`,
    ),
  );
  events.on(
    'entry.quarantined',
    ({ jobQueueEntryId, jobRunIdentifier, reason }) =>
      logger.error(
        `"${jobRunIdentifier}" (entry ${jobQueueEntryId}) is quarantined: ${reason}`,
      ),
  );
  const putBack = rarely(60_000);
  events.on('entry.putBack', ({ jobRunIdentifier, templateCode, error }) => {
    if (putBack(`${templateCode} ${error.message}`))
      logger.warn(
        `${templateCode} "${jobRunIdentifier}" is put back for another process: ${error.message}`,
      );
  });
  events.on('process.abandoned', ({ outcome, ...run }) =>
    logger.error(
      `${named(run)} ${outcome}, but its handler did not stop: it goes on and keeps its slot`,
    ),
  );
  events.on('process.killed', ({ isolation, ...run }) =>
    logger.warn(
      `${named(run)}: its handler did not stop, and its ${isolation} is ended`,
    ),
  );
  events.on('process.stray', ({ error, late, ...run }) =>
    logger.error(
      `${named(run)}: a promise of its handler was rejected with ${nameOf(error)}, and nobody handled that: ${late ? 'its run had ended before' : 'its run fails'}`,
    ),
  );
  events.on('process.ended', (run) =>
    logger.warn(`${named(run)}: its abandoned handler has ended`),
  );
  events.on('database.lost', ({ error }) => {
    const code = databaseCode(error);
    logger.error(
      `the database was lost: ${nameOf(error)}${code ? ` (${code})` : ''}; the engine goes on trying`,
    );
  });
  events.on('database.back', ({ awayMs }) =>
    logger.log(`the database is back after ${Math.round(awayMs)} ms`),
  );
  events.on('engine.outdated', ({ error }) =>
    error
      ? logger.error(`${error.message}; this node claims nothing until then`)
      : logger.log('the tables can be worked with again: this node claims'),
  );
  events.on('engine.unrunnable', ({ code, active, count, oldestDueAt }) =>
    logger.error(
      `${count} jobs of ${code} wait, the first since ${oldestDueAt.toISOString()}: ` +
        (active
          ? 'no living node has a handler for it'
          : 'its template is inactive'),
    ),
  );
  events.on('engine.listening', ({ hears }) =>
    hears
      ? logger.log('NOTIFY reaches this node again')
      : logger.warn(
          'NOTIFY does not reach this node, as behind PgBouncer in transaction mode: jobs that other processes enqueue ' +
            'start at its next tick. Connect to PostgreSQL directly, or set notify: false, which saves a connection',
        ),
  );
  events.on('node.joined', ({ node }) => logger.debug(`joined as ${node}`));
  events.on('node.fenced', ({ node, why, running }) =>
    logger.error(
      why === 'silent'
        ? `node ${node} cannot tell the database that it is alive: it stops its ${running} jobs and claims none until it can`
        : `node ${node} was declared lost: it stops its ${running} jobs and begins anew`,
    ),
  );
  events.on('node.lost', ({ node, charged }) =>
    logger.warn(
      `node ${node} is lost, its jobs are tried again; ${charged} of them may be the cause`,
    ),
  );
  events.on('engine.error', ({ doing, error }) => {
    // Said once, not for each statement.
    if (error instanceof ConnectionLostError) return;
    const code = databaseCode(error);
    logger.error(
      `${doing} failed with ${nameOf(error)}${code ? ` (${code})` : ''}; the engine goes on`,
    );
  });
}

/** The same is put back at each pass. @returns whether to say a thing: once in so many ms */
function rarely(ms: number): (what: string) => boolean {
  const saidAt = new Map<string, number>();
  return (what) => {
    const now = performance.now();
    if (now < (saidAt.get(what) ?? -Infinity) + ms) return false;
    saidAt.set(what, now);
    return true;
  };
}
