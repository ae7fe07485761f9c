import { schemaCheck } from '../../context/json-schema.js';
import type { JobTemplate } from '../../database/entities/index.js';
import type { JsonSchema } from '../../job/json.js';
import { TEMPLATE_DEFAULTS } from '../../lifecycle/templates/template.sql.js';
import { maxRetries, priority, storedBackoff, timeout } from '../../options/job-options.js';
import {
  boolean,
  integer,
  or,
  partial,
  string,
  type Check,
  type SchemaOf,
} from '../../options/reader.js';

/** The fields of a template that an operator may change. */
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

const jsonSchema: Check<JsonSchema> = (value) => {
  schemaCheck(value);
  return value as JsonSchema;
};

/** The given fields, checked. @throws BildadConfigError about the wrong one, InvalidJobSchemaError */
export const readTemplateFields = partial({
  code: string(),
  name: string(),
  active: boolean,
  displayOrder: integer(-1_000_000, 1_000_000),
  jobModuleName: string(),
  defaultTimeoutMs: timeout,
  defaultMaxRetries: maxRetries,
  defaultPriority: priority,
  defaultBackoff: or(storedBackoff, null),
  jobContextSchema: jsonSchema,
  encrypt: boolean,
} satisfies SchemaOf<NewTemplate>);

/** A new template of an operator, with defaults. @throws BildadConfigError, InvalidJobSchemaError */
export function readNewTemplate(given: NewTemplate) {
  const where = 'createJobTemplate';
  const fields = readTemplateFields(given, '', where);
  const code = string()(fields.code, 'code', where);
  return { ...TEMPLATE_DEFAULTS, name: code, active: true, ...fields, code };
}
