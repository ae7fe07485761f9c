import { NO_TRAITS, type ContextTraits } from '../../context/context-traits.js';
import { toMilliseconds } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import { ISOLATIONS, type Isolation } from '../../job/isolation-mode.js';
import { flag, oneOf, refuseUnknown, text, wholeNumber } from '../../options/option-values.js';
import {
  readTransactional,
  type TransactionalSettings,
} from '../../options/transaction-options.js';
import { checkBackoff } from '../../job/backoff.js';
import { contextContract, type ContextContract } from '../../context/context-contract.js';
import {
  TEMPLATE_DEFAULTS,
  type TemplateDeclaration,
} from '../../lifecycle/templates/template.sql.js';
import type { BildadJobOptions } from './bildad-job.decorator.js';

const OPTION_NAMES: readonly (keyof BildadJobOptions)[] = [
  'code',
  'name',
  'displayOrder',
  'context',
  'timeout',
  'maxRetries',
  'priority',
  'backoff',
  'version',
  'upcast',
  'encrypt',
  'isolation',
  'transactional',
  'engine',
];

const contracts = new WeakMap<BildadJobOptions, ContextContract>();

/** The contract of a decorated class's contexts, made once. @throws InvalidJobSchemaError naming the class */
export function contractOf(options: BildadJobOptions, className: string): ContextContract {
  let contract = contracts.get(options);
  if (!contract) {
    contract = contextContract(options.context, `@BildadJob of ${className}`);
    contracts.set(options, contract);
  }
  return contract;
}

const traits = new WeakMap<BildadJobOptions, ContextTraits>();

/** What a decorated class says of its contexts, read once. @throws BildadConfigError naming the class */
export function traitsOf(options: BildadJobOptions, className: string): ContextTraits {
  let read = traits.get(options);
  if (!read) {
    read = readTraits(options, `@BildadJob of ${className}: `);
    traits.set(options, read);
  }
  return read;
}

function readTraits({ version, upcast, encrypt }: BildadJobOptions, prefix: string): ContextTraits {
  if (version === undefined && upcast === undefined && encrypt === undefined) return NO_TRAITS;
  if (upcast !== undefined && typeof upcast !== 'function')
    throw new BildadConfigError(`${prefix}upcast`, 'a function', upcast);
  if (upcast && version === undefined)
    throw new BildadConfigError(`${prefix}version`, 'the version that upcast leads to', version);
  const known = version === undefined ? 0 : wholeNumber(version, `${prefix}version`, 1, 1_000_000);
  if (known > 1 && !upcast)
    throw new BildadConfigError(
      `${prefix}upcast`,
      `a function that raises contexts of before to version ${known}`,
      upcast,
    );
  return {
    version: known,
    upcast,
    encrypt: encrypt === undefined ? false : flag(encrypt, `${prefix}encrypt`),
  };
}

/** Where a decorated class runs. @throws BildadConfigError naming the class */
export const isolationOf = ({ isolation }: BildadJobOptions, className: string): Isolation =>
  oneOf(isolation ?? 'inline', `@BildadJob of ${className}: isolation`, ISOLATIONS);

/** Whether a decorated class runs in a transaction, and in which. @throws BildadConfigError naming the class */
export const transactionalOf = (
  { transactional }: BildadJobOptions,
  className: string,
): TransactionalSettings | undefined =>
  readTransactional(transactional, `@BildadJob of ${className}: transactional`);

/** The template a decorated class declares. @throws BildadConfigError, InvalidJobSchemaError naming the class */
export function declarationOf(options: BildadJobOptions, className: string): TemplateDeclaration {
  const at = (option: keyof BildadJobOptions) => `@BildadJob of ${className}: ${option}`;
  refuseUnknown(options, `@BildadJob of ${className}: `, OPTION_NAMES);
  const { backoff } = options;
  const { version, encrypt } = traitsOf(options, className);
  if (options.context !== undefined && !['function', 'object'].includes(typeof options.context))
    throw new BildadConfigError(at('context'), 'a class or a JSON Schema', options.context);
  const code = text(options.code, at('code'));
  return {
    code,
    name: text(options.name ?? code, at('name')),
    displayOrder: wholeNumber(
      options.displayOrder ?? TEMPLATE_DEFAULTS.displayOrder,
      at('displayOrder'),
      -1_000_000,
      1_000_000,
    ),
    jobModuleName: className,
    defaultTimeoutMs: toMilliseconds(
      options.timeout ?? TEMPLATE_DEFAULTS.defaultTimeoutMs,
      at('timeout'),
      { min: 1 },
    ),
    defaultMaxRetries: wholeNumber(
      options.maxRetries ?? TEMPLATE_DEFAULTS.defaultMaxRetries,
      at('maxRetries'),
      0,
      1_000_000,
    ),
    defaultPriority: wholeNumber(
      options.priority ?? TEMPLATE_DEFAULTS.defaultPriority,
      at('priority'),
      -1_000_000,
      1_000_000,
    ),
    defaultBackoff:
      backoff === undefined || typeof backoff === 'function'
        ? null
        : checkBackoff(backoff, at('backoff')),
    jobContextSchema: contractOf(options, className).schema,
    contextVersion: version,
    encrypt,
  };
}
