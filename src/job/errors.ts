import { inspect } from 'node:util';

/** What every error of this package is: a stable `code`, its data as fields. */
export abstract class BildadError extends Error {
  abstract readonly code: string;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An option, a decorator or the database is not what Bildad needs: the message says what to do. */
export class BildadConfigError extends BildadError {
  readonly code = 'BILDAD_CONFIG';

  constructor(
    /** The option, class or object that is wrong. */
    readonly field: string,
    readonly expected: string,
    readonly got?: unknown,
    options?: ErrorOptions,
  ) {
    super(`${field}: expected ${expected}, got ${brief(got)}`, options);
  }
}

/** The database cannot be used as it is: unreachable, or a right is missing. */
export class BildadDatabaseError extends BildadError {
  readonly code = 'BILDAD_DATABASE';

  constructor(
    message: string,
    /** PostgreSQL's SQLSTATE or the system's error code, when there is one. */
    readonly databaseCode: string | undefined,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The tables were made by another version of this package, and this one cannot work with them. */
export class SchemaVersionError extends BildadError {
  readonly code = 'BILDAD_SCHEMA_VERSION';

  constructor(
    readonly schema: string,
    readonly databaseVersion: number,
    readonly packageVersion: number,
  ) {
    super(
      databaseVersion > packageVersion
        ? `schema "${schema}" is at version ${databaseVersion}, this nestjs-bildad knows ${packageVersion}: the database is newer than the package, upgrade the package`
        : `schema "${schema}" is at version ${databaseVersion}, this nestjs-bildad needs ${packageVersion}: run BILDAD_MIGRATIONS, or set migrate: true`,
    );
  }
}

export interface ContextViolation {
  /** Where in the context: `to`, `items[2].price`; empty for the whole context. */
  path: string;
  message: string;
}

/** The context does not satisfy the template's schema, or cannot be stored faithfully. */
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

/** The schema itself is unusable, whatever the context. */
export class InvalidJobSchemaError extends BildadError {
  readonly code = 'INVALID_JOB_SCHEMA';

  constructor(
    readonly problem: string,
    /** The handler class or template code the schema belongs to, when known. */
    readonly owner?: string,
    options?: ErrorOptions,
  ) {
    super(`${owner ? `${owner}: ` : ''}unusable context schema: ${problem}`, options);
  }
}

export class JobTemplateNotFoundError extends BildadError {
  readonly code = 'JOB_TEMPLATE_NOT_FOUND';

  constructor(readonly templateCode: string) {
    super(
      `no job template "${templateCode}": is its @BildadJob class a provider of this app, or of one that shares the database, and not bound to another engine?`,
    );
  }
}

export class JobTemplateInactiveError extends BildadError {
  readonly code = 'JOB_TEMPLATE_INACTIVE';

  constructor(readonly templateCode: string) {
    super(`job template "${templateCode}" is inactive`);
  }
}

/** A template with queue entries or runs cannot be deleted: deactivate it. */
export class JobTemplateInUseError extends BildadError {
  readonly code = 'JOB_TEMPLATE_IN_USE';

  constructor(readonly templateCode: string) {
    super(
      `job template "${templateCode}" has queue entries or runs and stays: set active: false instead`,
    );
  }
}

export class JobHandlerNotFoundError extends BildadError {
  readonly code = 'JOB_HANDLER_NOT_FOUND';

  constructor(readonly templateCode: string) {
    super(`this process has no handler for "${templateCode}" (or its role is 'producer')`);
  }
}

/** The entry cannot be claimed: it is running, or gone, or was claimed by somebody else just now. */
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

/** The run is not RUNNING any more: nothing was changed. */
export class RunNotActiveError extends BildadError {
  readonly code = 'RUN_NOT_ACTIVE';

  constructor(readonly jobRunId: string) {
    super(`run ${jobRunId} is not running: nothing was changed`);
  }
}

/** The reason of `job.signal` when the run passed its timeout. */
export class JobTimeoutError extends BildadError {
  readonly code = 'JOB_TIMEOUT';

  constructor(
    readonly jobRunId: string,
    readonly timeoutMs: number,
  ) {
    super(`run ${jobRunId} passed its timeout of ${timeoutMs} ms`);
  }
}

/** The reason of `job.signal` when the run was killed, cancelled, interrupted or taken away. */
export class JobKilledError extends BildadError {
  readonly code = 'JOB_KILLED';

  constructor(
    readonly jobRunId: string,
    readonly why: string,
  ) {
    super(`run ${jobRunId} was stopped: ${why}`);
  }
}

/** The thread or process that a job was isolated in ended while it ran; `why` says how. */
export class JobHostDiedError extends BildadError {
  readonly code = 'JOB_HOST_DIED';

  constructor(
    readonly isolation: 'thread' | 'process',
    readonly why: string,
  ) {
    super(`the ${isolation} that ran the job died: ${why}`);
  }
}

/** `waitForJob` gave up; the job itself goes on. */
export class WaitTimeoutError extends BildadError {
  readonly code = 'WAIT_TIMEOUT';

  constructor(
    readonly jobRunIdentifier: string,
    readonly timeoutMs: number,
  ) {
    super(`job "${jobRunIdentifier}" was not over after ${timeoutMs} ms`);
  }
}

function brief(value: unknown): string {
  return inspect(value, {
    depth: 1,
    breakLength: Infinity,
    maxStringLength: 60,
  }).slice(0, 120);
}
