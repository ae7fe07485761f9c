import { inspect } from 'node:util';
import { Logger } from '@nestjs/common';
import type { JobEventMap, JobEvents } from '../../job/events.js';
import type { OutcomeKind } from '../../job/outcome.js';
import type { Settings } from '../../options/settings.js';
import { databaseCode } from '../../database/database-error.js';
import { BildadError } from '../../job/errors.js';
import { nameOf } from '../../job/storable-output.js';
import { ConnectionLostError } from '../../database/connection/connection-errors.js';

/** The fields of a log line: identifiers, names and numbers. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/**
 * A log line with its fields in one object. Loggers that print text (Nest's console, a template
 * string) get the text. Loggers that write JSON get `msg` and the fields: pino and nestjs-pino at
 * the top level, Nest's console with `json: true` under `message`. nest-winston reads the text from
 * `message`.
 */
export class LogLine {
  readonly msg: string;

  constructor(text: string, fields: LogFields) {
    this.msg = text;
    Object.assign(this, fields);
  }

  get message(): string {
    return this.msg;
  }

  toString(): string {
    return this.msg;
  }

  [inspect.custom](): string {
    return this.msg;
  }
}

type Level = 'debug' | 'log' | 'warn' | 'error';
type Run = JobEventMap['run.started'][0];
type End = JobEventMap['run.finished'][0];

const logger = new Logger('Bildad');
/** The two lines of each job are not built when the log does not show them. */
const debugging = () => Logger.isLevelEnabled('debug');

const named = ({ templateCode, jobRunIdentifier, jobRunId, retry }: Run) =>
  `${templateCode} "${jobRunIdentifier}" (run ${jobRunId}, retry ${retry})`;
const fieldsOf = ({ templateCode, jobRunIdentifier, jobRunId, retry }: Run) => ({
  templateCode,
  jobRunIdentifier,
  jobRunId,
  retry,
});

/** Outcomes that a handler, an operator or a deploy requested. */
const REQUESTED: Partial<Record<OutcomeKind, Level>> = {
  completed: 'debug',
  snoozed: 'debug',
  cancelled: 'log',
  interrupted: 'log',
  stopped: 'log',
  killed: 'warn',
  missed: 'warn',
};

/** A failure without a retry is an error, else a warning. */
const levelOf = ({ outcome, entry }: End): Level =>
  REQUESTED[outcome] ?? (entry === 'removed' ? 'error' : 'warn');

/**
 * Log lines are subscribers of events, one fact each. They carry identifiers and the class of an
 * error, never its message, which may quote the context; the message is in the run's `reason`.
 */
export function logEvents(
  events: JobEvents,
  { name: engine, logFields }: Pick<Settings, 'name' | 'logFields'>,
): void {
  /** Writes a line for each event for which `line` returns one. */
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
    `${named(run)} ${outcome} rejected: its run had ended before, nothing changed`,
    { ...fieldsOf(run), outcome },
  ]);
  lines('entry.quarantined', ({ jobQueueEntryId, jobRunIdentifier, reason }) => [
    'error',
    `"${jobRunIdentifier}" (entry ${jobQueueEntryId}) is quarantined: ${reason}`,
    { jobQueueEntryId, jobRunIdentifier },
  ]);
  const isNew = rarely(60_000);
  lines('entry.released', ({ jobRunIdentifier, templateCode, jobQueueEntryId, error }) =>
    isNew(`${templateCode} ${error.message}`)
      ? [
          'warn',
          `${templateCode} "${jobRunIdentifier}" released for another process: ${error.message}`,
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
    `${named(run)} ${outcome}, but its handler did not stop: it still runs and keeps its slot`,
    { ...fieldsOf(run), outcome },
  ]);
  lines('process.killed', ({ isolation, ...run }) => [
    'warn',
    `${named(run)}: its handler did not stop, its ${isolation} was ended`,
    { ...fieldsOf(run), isolation },
  ]);
  lines('process.unhandledRejection', ({ error, late, ...run }) => [
    'error',
    `${named(run)}: unhandled promise rejection with ${nameOf(error)}: ${late ? 'its run had ended before' : 'its run fails'}`,
    { ...fieldsOf(run), errorName: nameOf(error), late },
  ]);
  lines('process.ended', (run) => [
    'log',
    `${named(run)}: its abandoned handler ended`,
    fieldsOf(run),
  ]);
  lines('database.lost', ({ error }) => [
    'error',
    `database connection lost: ${classOf(error)}; the engine keeps trying`,
    errorFields(error),
  ]);
  lines('database.restored', ({ outageMs }) => [
    'log',
    `database connection restored after ${Math.round(outageMs)} ms`,
    { outageMs: Math.round(outageMs) },
  ]);
  lines('engine.outdated', ({ error }) =>
    error
      ? [
          'error',
          `${error.message}; this node claims no jobs until then`,
          { errorCode: error.code, databaseVersion: error.databaseVersion },
        ]
      : ['log', 'the tables are usable again: this node claims jobs'],
  );
  lines('engine.unrunnable', ({ code, active, count, oldestDueAt }) => [
    'error',
    `${count} jobs of ${code} cannot run, the oldest is due since ${oldestDueAt.toISOString()}: ` +
      (active ? 'no live node has a handler for it' : 'its template is inactive'),
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
      ? `heartbeats of node ${node} do not reach the database: it stops its ${running} jobs and claims none until they do`
      : `node ${node} was declared lost: it stops its ${running} jobs and joins under a new id`,
    { node, why, running },
  ]);
  lines('node.lost', ({ node, charged }) => [
    'warn',
    `node ${node} is lost, its jobs are retried; ${charged} of them may be the cause`,
    { node, charged },
  ]);
  lines('engine.error', ({ doing, error }) =>
    // Logged once per outage as database.lost.
    error instanceof ConnectionLostError
      ? undefined
      : [
          'error',
          `${doing} failed with ${classOf(error)}; the engine continues`,
          { doing, ...errorFields(error) },
        ],
  );
}

/** The same entry is released at each pass. @returns whether to log `what`: once per `ms` */
function rarely(ms: number): (what: string) => boolean {
  const loggedAt = new Map<string, number>();
  return (what) => {
    const now = performance.now();
    if (now < (loggedAt.get(what) ?? -Infinity) + ms) return false;
    loggedAt.set(what, now);
    return true;
  };
}

/** `QueryFailedError (23514), caused by TypeError`. */
function classOf(error: unknown): string {
  const code = codeOf(error);
  const cause = causeOf(error);
  return `${nameOf(error)}${code ? ` (${code})` : ''}${cause ? `, caused by ${cause}` : ''}`;
}

const errorFields = (error: unknown): LogFields => {
  const { constraint, table } = driverFields(error);
  return {
    errorName: nameOf(error),
    errorCode: codeOf(error),
    errorCause: causeOf(error),
    constraint,
    table,
  };
};

const codeOf = (error: unknown): string | undefined =>
  error instanceof BildadError ? error.code : databaseCode(error);

const causeOf = (error: unknown): string | undefined =>
  error instanceof Error && error.cause !== undefined ? nameOf(error.cause) : undefined;

/** The violated constraint and its table. The row itself is in `detail` and is never logged. */
function driverFields(error: unknown): { constraint?: string; table?: string } {
  const { driverError } = (error ?? {}) as { driverError?: unknown };
  const { constraint, table } = (driverError ?? {}) as Record<string, unknown>;
  return {
    ...(typeof constraint === 'string' && { constraint }),
    ...(typeof table === 'string' && { table }),
  };
}
