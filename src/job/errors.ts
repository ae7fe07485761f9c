import { inspect } from 'node:util';

/** The base of every error of this package: a stable `code`, and the error's data as fields. */
export abstract class BildadError extends Error {
  abstract readonly code: string;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

export interface ConfigErrorDetails {
  /** The wrong value, for the message. Leave it out when it may be a secret. */
  got?: unknown;
  /** The call or decorator that got the value: `BildadModule.forRoot`. */
  where?: string | undefined;
  cause?: unknown;
}

/**
 * An option, an argument, a decorator or the database's setup is wrong. The message names it, what was expected, and
 * what was given: `concurrency must be an integer from 1 to 100000, got -1 (BildadModule.forRoot)`.
 */
export class BildadConfigError extends BildadError {
  readonly code = 'BILDAD_CONFIG';
  /** Undefined also where the message does not show a value. */
  readonly got: unknown;
  readonly where: string | undefined;

  constructor(
    /** The option, argument, class or object that is wrong. */
    readonly field: string,
    /** What is wrong with it, after its name: `must be an integer from 1 to 100000`. */
    readonly problem: string,
    details: ConfigErrorDetails = {},
  ) {
    const { got, where, cause } = details;
    const shown = 'got' in details ? `, got ${brief(got)}` : '';
    super(
      `${field} ${problem}${shown}${where ? ` (${where})` : ''}`,
      cause === undefined ? undefined : { cause },
    );
    this.got = got;
    this.where = where;
  }
}

/** The database cannot be used: it is unreachable, or a privilege is missing. */
export class BildadDatabaseError extends BildadError {
  readonly code = 'BILDAD_DATABASE';

  constructor(
    message: string,
    /** PostgreSQL's SQLSTATE or the system's error code, if there is one. */
    readonly databaseCode: string | undefined,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The tables have another version than this package needs. */
export class SchemaVersionError extends BildadError {
  readonly code = 'BILDAD_SCHEMA_VERSION';

  constructor(
    readonly schema: string,
    readonly databaseVersion: number,
    readonly packageVersion: number,
  ) {
    super(
      databaseVersion > packageVersion
        ? `schema "${schema}" has version ${databaseVersion}, which is newer than version ${packageVersion} of this nestjs-bildad: upgrade the package`
        : `schema "${schema}" has version ${databaseVersion}, but this nestjs-bildad needs version ${packageVersion}: run BILDAD_MIGRATIONS, or set migrate: true`,
    );
  }
}

export interface ContextViolation {
  /** The place in the context: `to`, `items[2].price`. Empty for the whole context. */
  path: string;
  message: string;
}

/** The context does not match the template's schema, or JSON cannot represent it. */
export class InvalidJobContextError extends BildadError {
  readonly code = 'INVALID_JOB_CONTEXT';

  constructor(readonly violations: ContextViolation[]) {
    super(
      `invalid job context: ${violations
        .map(({ path, message }) => (path ? `${path}: ${message}` : message))
        .join('; ')}`,
    );
  }
}

/** The context schema itself is wrong, whatever the context is. */
export class InvalidJobSchemaError extends BildadError {
  readonly code = 'INVALID_JOB_SCHEMA';

  constructor(
    readonly problem: string,
    /** The handler class or template code that the schema belongs to, if known. */
    readonly owner?: string,
    options?: ErrorOptions,
  ) {
    super(`${owner ? `${owner}: ` : ''}invalid context schema: ${problem}`, options);
  }
}

/** The context was written by a newer deploy than this process. The job goes back to the queue. */
export class JobContextVersionError extends BildadError {
  readonly code = 'JOB_CONTEXT_VERSION';

  constructor(
    readonly templateCode: string,
    readonly version: number,
    readonly known: number,
  ) {
    super(
      `the context of this ${templateCode} job has version ${version}, but this process knows only version ${known}`,
    );
  }
}

/** A key of the module option `encryption` is missing, or it is not the key that encrypted the data. */
export class JobEncryptionKeyError extends BildadError {
  readonly code = 'JOB_ENCRYPTION_KEY';

  constructor(
    readonly why: string,
    /** Undefined if no key is configured at all. */
    readonly keyId?: string,
  ) {
    super(`encryption: ${why}`);
  }
}

/**
 * A value of the module option `carry` could not be captured or restored. At enqueue, `capture` threw (the error is the
 * `cause`) or returned something that is not JSON or too large, and the call enqueued nothing. In a run, `restore` did
 * not call `next`, and the run fails.
 */
export class CarriedContextError extends BildadError {
  readonly code = 'CARRIED_CONTEXT';

  constructor(
    /** Its name in the option `carry`. */
    readonly carrier: string,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`carry.${carrier}: ${problem}`, options);
  }
}

export class JobTemplateNotFoundError extends BildadError {
  readonly code = 'JOB_TEMPLATE_NOT_FOUND';

  constructor(readonly templateCode: string) {
    super(
      `no job template "${templateCode}": check that its @BildadJob class is a provider of this app, or of another app on the same database, and is not bound to another engine`,
    );
  }
}

export class JobTemplateInactiveError extends BildadError {
  readonly code = 'JOB_TEMPLATE_INACTIVE';

  constructor(readonly templateCode: string) {
    super(`job template "${templateCode}" is inactive`);
  }
}

/** A template with queue entries or runs cannot be deleted, only deactivated. */
export class JobTemplateInUseError extends BildadError {
  readonly code = 'JOB_TEMPLATE_IN_USE';

  constructor(readonly templateCode: string) {
    super(
      `job template "${templateCode}" has queue entries or runs and cannot be deleted: set active: false instead`,
    );
  }
}

export class JobHandlerNotFoundError extends BildadError {
  readonly code = 'JOB_HANDLER_NOT_FOUND';

  constructor(readonly templateCode: string) {
    super(`this process has no handler for "${templateCode}", or its role is 'producer'`);
  }
}

/** The identifier belongs to a job that is queued or in the history, or another job holds the unique key. */
export class DuplicateJobError extends BildadError {
  readonly code = 'DUPLICATE_JOB';

  constructor(
    /** The identifier of the existing job. */
    readonly jobRunIdentifier: string,
    /** The `unique.key` that the existing job holds, if that is the conflict. */
    readonly uniqueKey?: string,
  ) {
    super(
      uniqueKey === undefined
        ? `job "${jobRunIdentifier}" is already queued, or has run`
        : `job "${jobRunIdentifier}" holds the unique key "${uniqueKey}"`,
    );
  }
}

/**
 * The connection was lost while a job was inserted, and the database did not answer in time whether it was. Enqueue it
 * again with this identifier: there will be one job, not two.
 */
export class EnqueueOutcomeUnknownError extends BildadError {
  readonly code = 'ENQUEUE_OUTCOME_UNKNOWN';

  constructor(
    /** The identifier of the job; of a bulk call, of its first job: all of its jobs were inserted, or none. */
    readonly jobRunIdentifier: string,
    options?: ErrorOptions,
  ) {
    super(
      `job "${jobRunIdentifier}" may or may not have been enqueued: the connection was lost, and the database did not come back in time; it is safe to enqueue it again with the same jobRunIdentifier`,
      options,
    );
  }
}

/**
 * The transaction that the call belongs to has been committed or rolled back already. Await the call inside of the
 * transaction, or pass `{ manager: null }` to enqueue outside of it.
 */
export class TransactionOverError extends BildadError {
  readonly code = 'TRANSACTION_OVER';

  constructor() {
    super(
      'the transaction of this call has ended already: await the call inside of the transaction, or pass { manager: null } to enqueue outside of it',
    );
  }
}

/** The entry cannot be claimed: it is running, it left the queue, or another caller claimed it first. */
export class JobNotAvailableError extends BildadError {
  readonly code = 'JOB_NOT_AVAILABLE';

  constructor(
    readonly jobRunIdentifier: string,
    readonly why: string,
    options?: ErrorOptions,
  ) {
    super(`job "${jobRunIdentifier}" is not available: ${why}`, options);
  }
}

export class JobNotFoundError extends BildadError {
  readonly code = 'JOB_NOT_FOUND';

  constructor(
    readonly jobRunIdentifier: string,
    why = 'it is neither queued nor in the history',
  ) {
    super(`no job "${jobRunIdentifier}": ${why}`);
  }
}

/** The run is not RUNNING any more. Nothing was changed. */
export class RunNotActiveError extends BildadError {
  readonly code = 'RUN_NOT_ACTIVE';

  constructor(readonly jobRunId: string) {
    super(`run ${jobRunId} is not running: nothing was changed`);
  }
}

/** The reason of `job.signal` when the run exceeded its timeout. */
export class JobTimeoutError extends BildadError {
  readonly code = 'JOB_TIMEOUT';

  constructor(
    readonly jobRunId: string,
    readonly timeoutMs: number,
  ) {
    super(`run ${jobRunId} exceeded its timeout of ${timeoutMs} ms`);
  }
}

/** The reason of `job.signal` when the run was killed, cancelled or interrupted, or when its node lost its lease. */
export class JobKilledError extends BildadError {
  readonly code = 'JOB_KILLED';

  constructor(
    readonly jobRunId: string,
    readonly why: string,
  ) {
    super(`run ${jobRunId} was stopped: ${why}`);
  }
}

/** The thread or process of an isolated job ended while the job ran. */
export class JobHostDiedError extends BildadError {
  readonly code = 'JOB_HOST_DIED';

  constructor(
    readonly isolation: 'thread' | 'process',
    readonly why: string,
  ) {
    super(`the ${isolation} that ran the job died: ${why}`);
  }
}

/** `waitForJob` stopped waiting. The job itself continues. */
export class WaitTimeoutError extends BildadError {
  readonly code = 'WAIT_TIMEOUT';

  constructor(
    readonly jobRunIdentifier: string,
    readonly timeoutMs: number,
  ) {
    super(`job "${jobRunIdentifier}" did not finish within ${timeoutMs} ms`);
  }
}

function brief(value: unknown): string {
  return inspect(value, { depth: 1, breakLength: Infinity, maxStringLength: 60 }).slice(0, 120);
}
