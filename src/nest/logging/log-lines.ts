import { Logger } from '@nestjs/common';
import type { JobEventMap, JobEvents } from '../../job/events.js';
import type { OutcomeKind } from '../../job/outcome.js';
import type { Settings } from '../../options/settings.js';
import { nameOf } from '../../job/storable-output.js';
import { ConnectionLostError } from '../../database/connection/connection-errors.js';
import { classOf, errorFields } from './error-facts.js';
import { LogLine, type LogFields } from './log-line.js';

type Level = 'debug' | 'log' | 'warn' | 'error';
type Run = JobEventMap['run.started'][0];
type End = JobEventMap['run.finished'][0];

const logger = new Logger('Bildad');
/** Two lines for each job: not put together for a log that does not want them. */
const debugging = () => Logger.isLevelEnabled('debug');

const named = ({ templateCode, jobRunIdentifier, jobRunId, retry }: Run) =>
  `${templateCode} "${jobRunIdentifier}" (run ${jobRunId}, retry ${retry})`;
const fieldsOf = ({ templateCode, jobRunIdentifier, jobRunId, retry }: Run) => ({
  templateCode,
  jobRunIdentifier,
  jobRunId,
  retry,
});

/** What a handler or an operator wanted, and what a deploy does. */
const CALM: Partial<Record<OutcomeKind, Level>> = {
  completed: 'debug',
  snoozed: 'debug',
  cancelled: 'log',
  interrupted: 'log',
  stopped: 'log',
  killed: 'warn',
  missed: 'warn',
};

/** An error is what nobody tries again; what is to be tried again may go well. */
const levelOf = ({ outcome, entry }: End): Level =>
  CALM[outcome] ?? (entry === 'removed' ? 'error' : 'warn');

/**
 * Log lines are subscribers of events, one fact each. They carry identifiers and the class of an
 * error, never its message, which may quote the context; the message is in the run's `reason`.
 */
export function logEvents(
  events: JobEvents,
  { name: engine, logFields }: Pick<Settings, 'name' | 'logFields'>,
): void {
  /** A line for each of the events, but for those of which it makes none. */
  const lines = <E extends keyof JobEventMap>(
    event: E,
    line: (
      payload: JobEventMap[E][0],
    ) => [level: Level, text: string, fields?: LogFields] | undefined,
  ) =>
    events.on(event, (...[payload]) => {
      const made = line(payload);
      if (!made) return;
      const [level, text, fields] = made;
      logger[level](logFields ? new LogLine(text, { event, engine, ...fields }) : text);
    });

  lines('run.started', (run) =>
    debugging() ? ['debug', `${named(run)} started`, fieldsOf(run)] : undefined,
  );
  lines('run.finished', (end) => {
    const level = levelOf(end);
    if (level === 'debug' && !debugging()) return undefined;
    const { outcome, entry, errorName } = end;
    return [
      level,
      `${named(end)} ${outcome}${errorName ? ` with ${errorName}` : ''}, entry ${entry}`,
      { ...fieldsOf(end), outcome, entry, errorName },
    ];
  });
  lines('run.finishRejected', ({ outcome, ...run }) => [
    'warn',
    `${named(run)} ${outcome} too late: its run was closed before, nothing was changed`,
    { ...fieldsOf(run), outcome },
  ]);
  lines('entry.quarantined', ({ jobQueueEntryId, jobRunIdentifier, reason }) => [
    'error',
    `"${jobRunIdentifier}" (entry ${jobQueueEntryId}) is quarantined: ${reason}`,
    { jobQueueEntryId, jobRunIdentifier },
  ]);
  const putBack = rarely(60_000);
  lines('entry.putBack', ({ jobRunIdentifier, templateCode, jobQueueEntryId, error }) =>
    putBack(`${templateCode} ${error.message}`)
      ? [
          'warn',
          `${templateCode} "${jobRunIdentifier}" is put back for another process: ${error.message}`,
          {
            templateCode,
            jobRunIdentifier,
            jobQueueEntryId,
            errorCode: error.code,
          },
        ]
      : undefined,
  );
  lines('process.abandoned', ({ outcome, ...run }) => [
    'error',
    `${named(run)} ${outcome}, but its handler did not stop: it goes on and keeps its slot`,
    { ...fieldsOf(run), outcome },
  ]);
  lines('process.killed', ({ isolation, ...run }) => [
    'warn',
    `${named(run)}: its handler did not stop, and its ${isolation} is ended`,
    { ...fieldsOf(run), isolation },
  ]);
  lines('process.stray', ({ error, late, ...run }) => [
    'error',
    `${named(run)}: a promise of its handler was rejected with ${nameOf(error)}, and nobody handled that: ${late ? 'its run had ended before' : 'its run fails'}`,
    { ...fieldsOf(run), errorName: nameOf(error), late },
  ]);
  lines('process.ended', (run) => [
    'log',
    `${named(run)}: its abandoned handler has ended`,
    fieldsOf(run),
  ]);
  lines('database.lost', ({ error }) => [
    'error',
    `the database was lost: ${classOf(error)}; the engine goes on trying`,
    errorFields(error),
  ]);
  lines('database.back', ({ awayMs }) => [
    'log',
    `the database is back after ${Math.round(awayMs)} ms`,
    { awayMs: Math.round(awayMs) },
  ]);
  lines('engine.outdated', ({ error }) =>
    error
      ? [
          'error',
          `${error.message}; this node claims nothing until then`,
          { errorCode: error.code, databaseVersion: error.databaseVersion },
        ]
      : ['log', 'the tables can be worked with again: this node claims'],
  );
  lines('engine.unrunnable', ({ code, active, count, oldestDueAt }) => [
    'error',
    `${count} jobs of ${code} wait, the first since ${oldestDueAt.toISOString()}: ` +
      (active ? 'no living node has a handler for it' : 'its template is inactive'),
    {
      templateCode: code,
      active,
      count,
      oldestDueAt: oldestDueAt.toISOString(),
    },
  ]);
  lines('engine.listening', ({ hears }) =>
    hears
      ? ['log', 'NOTIFY reaches this node again', { hears }]
      : [
          'warn',
          'NOTIFY does not reach this node, as behind PgBouncer in transaction mode: jobs that other processes enqueue ' +
            'start at its next tick. Connect to PostgreSQL directly, or set notify: false, which saves a connection',
          { hears },
        ],
  );
  lines('node.joined', ({ node }) => ['debug', `joined as ${node}`, { node }]);
  lines('node.fenced', ({ node, why, running }) => [
    'error',
    why === 'silent'
      ? `node ${node} cannot tell the database that it is alive: it stops its ${running} jobs and claims none until it can`
      : `node ${node} was declared lost: it stops its ${running} jobs and begins anew`,
    { node, why, running },
  ]);
  lines('node.lost', ({ node, charged }) => [
    'warn',
    `node ${node} is lost, its jobs are tried again; ${charged} of them may be the cause`,
    { node, charged },
  ]);
  lines('engine.error', ({ doing, error }) =>
    // Said once, not for each statement.
    error instanceof ConnectionLostError
      ? undefined
      : [
          'error',
          `${doing} failed with ${classOf(error)}; the engine goes on`,
          { doing, ...errorFields(error) },
        ],
  );
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
