import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import { Ajv2019 } from 'ajv/dist/2019.js';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { InvalidJobSchemaError, type ContextViolation } from '../job/errors.js';
import type { JsonSchema } from '../job/json.js';

const MAX_VIOLATIONS = 100;
const MAX_COMPILED = 1_000;

const options = { allErrors: true, strict: false, logger: false, addUsedSchema: false } as const;
const draft07 = withFormats(new Ajv(options));
const draft2019 = withFormats(new Ajv2019(options));
const draft2020 = withFormats(new Ajv2020(options));

/** A cache: compiling takes milliseconds, validating microseconds. */
const compiled = new Map<string, ValidateFunction>();

export type SchemaCheck = (value: unknown) => ContextViolation[];

/**
 * Compiles a JSON Schema: draft 7 unless its `$schema` names 2019-09 or 2020-12.
 * @throws InvalidJobSchemaError when the schema is invalid
 */
export function schemaCheck(schema: unknown, owner?: string): SchemaCheck {
  const validate = compile(schema, owner);
  return (value) =>
    validate(value) ? [] : (validate.errors ?? []).slice(0, MAX_VIOLATIONS).map(violation);
}

function compile(schema: unknown, owner?: string): ValidateFunction {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
    throw new InvalidJobSchemaError('it must be an object', owner);
  try {
    const text = JSON.stringify(schema);
    let validate = compiled.get(text);
    if (!validate) {
      // A copy: Ajv identifies schemas by object, and the caller may change the original.
      validate = ajvFor(schema as JsonSchema).compile(JSON.parse(text) as JsonSchema);
      if ('$async' in validate) throw new Error('$async is not supported');
      if (compiled.size >= MAX_COMPILED) compiled.clear();
      compiled.set(text, validate);
    }
    return validate;
  } catch (error) {
    throw new InvalidJobSchemaError((error as Error).message, owner, { cause: error });
  }
}

function ajvFor({ $schema }: JsonSchema): Ajv {
  const dialect = typeof $schema === 'string' ? $schema : '';
  if (dialect.includes('2020-12')) return draft2020;
  return dialect.includes('2019-09') ? draft2019 : draft07;
}

function violation({ instancePath, params, message }: ErrorObject): ContextViolation {
  const keys = instancePath
    .split('/')
    .slice(1)
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
  const missing: unknown = params['missingProperty'] ?? params['additionalProperty'];
  if (typeof missing === 'string') keys.push(missing);
  const path = keys.reduce(
    (so, key) => (/^\d+$/.test(key) ? `${so}[${key}]` : so ? `${so}.${key}` : key),
    '',
  );
  return { path, message: message ?? 'is invalid' };
}

function withFormats<A extends Ajv>(ajv: A): A {
  // The package is CommonJS: its function is the default export of the default export.
  (formats as unknown as { default: (ajv: Ajv) => void }).default(ajv);
  return ajv;
}
