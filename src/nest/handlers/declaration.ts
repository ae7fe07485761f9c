import {
  contextContract,
  type ContextClass,
  type ContextContract,
  NO_TRAITS,
  type ContextTraits,
  type Upcast,
} from '../../context/context-contract.js';
import type { JobTemplate } from '../../database/entities/index.js';
import type { BackoffFunction } from '../../job/backoff.js';
import { BildadConfigError } from '../../job/errors.js';
import { ISOLATIONS, type Isolation, type JobHandlerClass } from '../../job/job-handler.js';
import type { JsonSchema } from '../../job/json.js';
import {
  TEMPLATE_DEFAULTS,
  type TemplateDeclaration,
} from '../../lifecycle/templates/template.sql.js';
import type { JobReference } from '../../lifecycle/templates/templates.js';
import {
  backoff,
  maxRetries,
  priority,
  timeout,
  transactional,
  type TransactionalSettings,
} from '../../options/job-options.js';
import {
  boolean,
  callback,
  check,
  group,
  integer,
  oneOf,
  optional,
  string,
  withDefault,
  type SchemaOf,
} from '../../options/reader.js';
import { jobOptionsOf, type BildadJobOptions } from './bildad-job.decorator.js';

const context = check<ContextClass | JsonSchema>(
  (value) => typeof value === 'function' || typeof value === 'object',
  'must be a class or a JSON Schema',
);

const readOptions = group({
  code: string(),
  name: optional(string()),
  displayOrder: withDefault(integer(-1_000_000, 1_000_000), TEMPLATE_DEFAULTS.displayOrder),
  context: optional(context),
  timeout: withDefault(timeout, TEMPLATE_DEFAULTS.defaultTimeoutMs),
  maxRetries: withDefault(maxRetries, TEMPLATE_DEFAULTS.defaultMaxRetries),
  priority: withDefault(priority, TEMPLATE_DEFAULTS.defaultPriority),
  backoff: optional(backoff),
  version: optional(integer(1, 1_000_000)),
  upcast: optional(callback<Upcast>('returns the context in the declared version')),
  encrypt: withDefault(boolean, false),
  isolation: withDefault(oneOf(...ISOLATIONS), 'inline'),
  transactional,
  engine: optional(string()),
} satisfies SchemaOf<BildadJobOptions>);

/** What `@BildadJob` declares of a class. */
export interface HandlerDeclaration {
  template: TemplateDeclaration;
  contract: ContextContract;
  traits: ContextTraits;
  isolation: Isolation;
  transactional: TransactionalSettings | undefined;
  /** A backoff function cannot be stored in the template. */
  backoff: BackoffFunction | undefined;
}

const declarations = new WeakMap<BildadJobOptions, HandlerDeclaration>();

/** Reads the options of a class once. @throws BildadConfigError, InvalidJobSchemaError, which name the class */
export function declarationOf(options: BildadJobOptions, className: string): HandlerDeclaration {
  let declaration = declarations.get(options);
  if (!declaration) {
    declaration = readDeclaration(options, className);
    if (typeof options === 'object') declarations.set(options, declaration);
  }
  return declaration;
}

function readDeclaration(options: BildadJobOptions, className: string): HandlerDeclaration {
  const where = `@BildadJob of ${className}`;
  const read = readOptions(options, '', where);
  const { code, version, upcast, encrypt } = read;
  if (upcast && version === undefined)
    throw new BildadConfigError('version', 'is required with upcast: the version that it returns', {
      where,
    });
  if (version !== undefined && version > 1 && !upcast)
    throw new BildadConfigError(
      'upcast',
      `is required from version 2 on: a function that turns older contexts into version ${version}`,
      { where },
    );
  const contract = contextContract(read.context, where);
  const isFunction = typeof read.backoff === 'function';
  return {
    template: {
      code,
      name: read.name ?? code,
      displayOrder: read.displayOrder,
      jobModuleName: className,
      defaultTimeoutMs: read.timeout,
      defaultMaxRetries: read.maxRetries,
      defaultPriority: read.priority,
      defaultBackoff: isFunction ? null : (read.backoff ?? null),
      jobContextSchema: contract.schema,
      contextVersion: version ?? 0,
      encrypt,
    },
    contract,
    traits:
      version === undefined && !encrypt ? NO_TRAITS : { version: version ?? 0, upcast, encrypt },
    isolation: read.isolation,
    transactional: read.transactional,
    backoff: isFunction ? (read.backoff as BackoffFunction) : undefined,
  };
}

/** @throws BildadConfigError when `job` is neither a decorated class, nor a code, nor a template */
export function referenceTo(
  job: JobHandlerClass | string | Pick<JobTemplate, 'code'>,
): JobReference {
  if (typeof job === 'string') return { code: job };
  const options = jobOptionsOf(job);
  if (options) {
    const { contract, traits } = declarationOf(options, (job as JobHandlerClass).name);
    return { code: options.code, contract, traits };
  }
  const { code } = (job ?? {}) as { code?: unknown };
  if (typeof job === 'object' && typeof code === 'string') return { code };
  throw new BildadConfigError(
    'job',
    "must be a class decorated with @BildadJob, a template's code, or a JobTemplate",
    { got: job },
  );
}

/**
 * The code of a job's template.
 * @throws BildadConfigError when `job` is neither a decorated class, nor a code, nor a template
 */
export const jobCodeOf = (job: JobHandlerClass | string | Pick<JobTemplate, 'code'>): string =>
  referenceTo(job).code;
