import { toMilliseconds } from '../../job/duration.js';
import { flag, refuseUnknown, text, wholeNumber } from '../../options/option-values.js';
import { checkBackoff } from '../../job/backoff.js';
import { schemaCheck } from '../../context/json-schema.js';
import type { JobTemplate } from '../../database/entities/index.js';
import { TEMPLATE_DEFAULTS } from '../../lifecycle/templates/template.sql.js';

/** What an operator may write of a template. */
export type TemplateFields = Partial<
  Pick<
    JobTemplate,
    | 'name'
    | 'active'
    | 'displayOrder'
    | 'jobModuleName'
    | 'defaultTimeoutMs'
    | 'defaultMaxRetries'
    | 'defaultPriority'
    | 'defaultBackoff'
    | 'jobContextSchema'
    | 'encrypt'
  >
>;

export type NewTemplate = TemplateFields & Pick<JobTemplate, 'code'>;

const READERS: {
  [F in keyof Required<NewTemplate>]: (value: NonNullable<NewTemplate[F]>) => unknown;
} = {
  code: (value) => text(value, 'code'),
  name: (value) => text(value, 'name'),
  active: (value) => flag(value, 'active'),
  displayOrder: (value) => wholeNumber(value, 'displayOrder', -1_000_000, 1_000_000),
  jobModuleName: (value) => text(value, 'jobModuleName'),
  defaultTimeoutMs: (value) => toMilliseconds(value, 'defaultTimeoutMs', { min: 1 }),
  defaultMaxRetries: (value) => wholeNumber(value, 'defaultMaxRetries', 0, 1_000_000),
  defaultPriority: (value) => wholeNumber(value, 'defaultPriority', -1_000_000, 1_000_000),
  defaultBackoff: (value) => checkBackoff(value, 'defaultBackoff'),
  encrypt: (value) => flag(value, 'encrypt'),
  jobContextSchema: (value) => {
    schemaCheck(value);
    return value;
  },
};

/** The fields given, checked. @throws BildadConfigError naming the wrong one, InvalidJobSchemaError */
export function readTemplateFields<F extends Partial<NewTemplate>>(fields: F): F {
  refuseUnknown(fields, '', Object.keys(READERS));
  const read: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const reader = READERS[field as keyof NewTemplate] as (value: unknown) => unknown;
    read[field] = value === null && field === 'defaultBackoff' ? null : reader(value);
  }
  return read as F;
}

/** A template an operator makes, with what was left out. @throws BildadConfigError, InvalidJobSchemaError */
export function readNewTemplate(fields: NewTemplate) {
  const code = text(fields.code, 'code');
  return {
    ...TEMPLATE_DEFAULTS,
    name: code,
    active: true,
    ...readTemplateFields(fields),
    code,
  };
}
