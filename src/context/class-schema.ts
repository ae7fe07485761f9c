import { TransformationType } from 'class-transformer';
import { defaultMetadataStorage } from 'class-transformer/cjs/storage.js';
import * as classValidator from 'class-validator';
import { getMetadataStorage } from 'class-validator';
import { targetConstructorToSchema } from 'class-validator-jsonschema';
import { InvalidJobSchemaError } from '../job/errors.js';
import type { JsonSchema } from '../job/json.js';

type Constructor = new (...args: any[]) => object;

const DEFS = '#/$defs/';
const NO_REQUIREMENT = ['nestedValidation', 'whitelistValidation'];
/** Built-in validators that accept a missing value. Custom validators may accept it too. */
const LENIENT = ['isEmpty', 'notEquals', 'isNotIn'];
const BUILT_IN = new Set<unknown>(Object.values(classValidator));

/**
 * Describes a class-validator class as a JSON Schema, with nested classes under `$defs`. The template stores it for
 * operators, forms, and processes that only enqueue.
 * @throws InvalidJobSchemaError when the class has no class-validator decorators
 */
export function schemaOfClass(target: Constructor, owner?: string): JsonSchema {
  if (getMetadataStorage().getTargetValidationMetadatas(target, '', false, false).length === 0)
    throw new InvalidJobSchemaError(
      `class ${target.name} has no class-validator decorators`,
      owner,
    );
  const defs = new Map<Constructor, { name: string; schema?: JsonSchema }>();
  const schema = describe(target, defs);
  const $defs = Object.fromEntries([...defs.values()].map((def) => [def.name, def.schema!]));
  const known = new Set(Object.keys($defs).map((name) => DEFS + name));
  for (const described of [schema, ...Object.values($defs)]) dropUnusable(described, known);
  return defs.size === 0 ? schema : { ...schema, $defs };
}

/** The class validates where it is known. A class that cannot be described must not keep the app from booting. */
function convertClass(target: Constructor): JsonSchema {
  try {
    return targetConstructorToSchema(target, {
      refPointerPrefix: DEFS,
      classTransformerMetadataStorage: defaultMetadataStorage,
      additionalConverters: CONVERTERS,
    }) as JsonSchema;
  } catch {
    return { type: 'object' };
  }
}

/** Replaces members that Ajv cannot compile with a schema that accepts anything. */
function dropUnusable(schema: JsonSchema, known: Set<string>): void {
  const properties = (schema['properties'] ?? {}) as Record<string, JsonSchema>;
  for (const [property, member] of Object.entries(properties))
    if (!isUsable(member, known)) properties[property] = {};
}

function isUsable(schema: unknown, known: Set<string>): boolean {
  if (typeof schema !== 'object' || schema === null) return true;
  return Object.entries(schema).every(([key, value]) => {
    if (key === '$ref') return known.has(value as string);
    if (key === 'pattern' && typeof value === 'string') return isValidPattern(value);
    return isUsable(value, known);
  });
}

function isValidPattern(pattern: string): boolean {
  try {
    return Boolean(new RegExp(pattern, 'u'));
  } catch {
    return false;
  }
}

function describe(
  target: Constructor,
  defs: Map<Constructor, { name: string; schema?: JsonSchema }>,
): JsonSchema {
  const schema = convertClass(target);
  const properties = (schema['properties'] ?? {}) as Record<string, JsonSchema>;
  const conditional = conditionalProperties(target);
  const optional = optionalProperties(target);
  for (const property of defaultedProperties(target)) optional.add(property);
  for (const [property, member] of Object.entries(properties)) {
    const nested = nestedClass(target, property);
    if (nested && JSON.stringify(member).includes(DEFS)) {
      const { name } = defs.get(nested) ?? register(nested, defs);
      renameReferences(member, nested.name, name);
    }
    if (isTransformed(target, property)) {
      properties[property] = {};
      continue;
    }
    // @IsOptional accepts null, and @ValidateIf depends on code: the schema must not be stricter than the class.
    const condition = conditional.get(property);
    if (condition === 'isOptional') properties[property] = { anyOf: [member, { type: 'null' }] };
    else if (condition) properties[property] = {};
  }
  const required = (schema['required'] as string[] | undefined)?.filter(
    (property) => !optional.has(property),
  );
  return required ? { ...schema, required } : schema;
}

function register(
  nested: Constructor,
  defs: Map<Constructor, { name: string; schema?: JsonSchema }>,
): { name: string } {
  const taken = new Set([...defs.values()].map(({ name }) => name));
  let name = nested.name;
  for (let n = 2; taken.has(name); n++) name = `${nested.name}${n}`;
  const def: { name: string; schema?: JsonSchema } = { name };
  // Registered before it is described: a class may contain itself.
  defs.set(nested, def);
  def.schema = describe(nested, defs);
  return def;
}

/** References contain only the class name: two classes of the same name need two definitions. */
function renameReferences(schema: unknown, from: string, to: string): void {
  if (typeof schema !== 'object' || schema === null) return;
  for (const [key, value] of Object.entries(schema))
    if (key === '$ref' && value === DEFS + from) (schema as JsonSchema)[key] = DEFS + to;
    else renameReferences(value, from, to);
}

function nestedClass(target: Constructor, property: string): Constructor | undefined {
  const type = defaultMetadataStorage.findTypeMetadata(target, property);
  try {
    return (type?.typeFunction?.() ?? type?.reflectedType) as Constructor | undefined;
  } catch {
    return undefined;
  }
}

/** The decorators check another value than the stored one. */
function isTransformed(target: Constructor, property: string): boolean {
  const nested = nestedClass(target, property) as unknown;
  return (
    nested === String ||
    nested === Number ||
    nested === Boolean ||
    defaultMetadataStorage.findTransformMetadatas(
      target,
      property,
      TransformationType.PLAIN_TO_CLASS,
    ).length > 0
  );
}

function conditionalProperties(target: Constructor): Map<string, string> {
  return new Map(
    getMetadataStorage()
      .getTargetValidationMetadatas(target, '', false, false)
      .filter(({ type }) => type === 'conditionalValidation')
      .map(({ propertyName, name }) => [propertyName, name ?? 'validateIf']),
  );
}

/** Properties that may be missing, because their only decorators are such as @ValidateNested or @Allow. */
function optionalProperties(target: Constructor): Set<string> {
  const metadata = getMetadataStorage().getTargetValidationMetadatas(target, '', false, false);
  const requiring = new Set(
    metadata
      .filter(
        ({ type, name }) =>
          !NO_REQUIREMENT.includes(type) &&
          (type !== 'customValidation' || (BUILT_IN.has(name) && !LENIENT.includes(name!))),
      )
      .map(({ propertyName }) => propertyName),
  );
  return new Set(
    metadata.map(({ propertyName }) => propertyName).filter((property) => !requiring.has(property)),
  );
}

/** Properties that the class gives a default value. */
function defaultedProperties(target: Constructor): string[] {
  try {
    return Object.entries(new target())
      .filter(([, value]) => value !== undefined)
      .map(([property]) => property);
  } catch {
    return [];
  }
}

/** What class-validator-jsonschema passes to a converter. */
interface Decorator {
  constraints?: any[];
}
type Converter = JsonSchema | ((decorator: Decorator) => JsonSchema);

const TEXT: JsonSchema = { type: 'string' };
/** Text formats that class-validator checks with options, locales or rules that JSON Schema lacks. */
const OTHER_TEXT =
  'isDateString isIso8601 isUrl isIp isFqdn isNumberString isBooleanString isAlpha isAlphanumeric ' +
  'isHexColor isHexadecimal isMongoId isSurrogatePair isAscii isFullWidth isHalfWidth isMultibyte isVariableWidth';
/** The types that class-transformer can turn into a Date. */
const DATE: JsonSchema = { description: 'a date', type: ['string', 'number', 'boolean'] };
const LIST: JsonSchema = { type: 'array', items: {} };

/**
 * Replace those converters of class-validator-jsonschema that are stricter than the validator, or whose schemas do not
 * compile.
 */
const CONVERTERS: Record<string, Converter> = {
  ...Object.fromEntries(OTHER_TEXT.split(' ').map((name) => [name, TEXT])),
  // Validators without a converter, such as custom ones, may accept anything.
  customValidation: {},
  isEmpty: { enum: ['', null] },
  isNotEmpty: { not: { enum: ['', null] } },
  isIn: ({ constraints }) => enumOf(constraints?.[0]),
  isNotIn: ({ constraints }) => {
    const refused = enumOf(constraints?.[0]);
    return refused['enum'] ? { not: refused } : {};
  },
  isEnum: ({ constraints }) => enumOf(Object.values((constraints?.[0] ?? {}) as object)),
  isDate: DATE,
  minDate: DATE,
  maxDate: DATE,
  // A hint for forms. Ajv's `email` is stricter than class-validator's.
  isEmail: { type: 'string', format: 'idn-email', pattern: '@' },
  isDivisibleBy: ({ constraints }) => divisibleBy(constraints?.[0]),
  contains: ({ constraints }) => ({ ...TEXT, pattern: escaped(constraints?.[0]) }),
  notContains: ({ constraints }) => ({ ...TEXT, not: { pattern: escaped(constraints?.[0]) } }),
  matches: ({ constraints }) => matching(constraints as [RegExp | string, string?]),
  // It compares objects by identity, `uniqueItems` by content.
  arrayUnique: LIST,
};

/** Any value if there are objects among them: the validator compares objects by identity. */
function enumOf(values: unknown): JsonSchema {
  return Array.isArray(values) && values.length > 0 && values.every(isPrimitive)
    ? { enum: values }
    : {};
}

const isPrimitive = (value: unknown) =>
  value === null || ['string', 'number', 'boolean'].includes(typeof value);

/** validator.js reads the divisor as an integer. */
function divisibleBy(by: number): JsonSchema {
  const step = Math.abs(parseInt(String(by), 10));
  return step > 0 ? { type: 'number', multipleOf: step } : { type: 'number' };
}

const escaped = (text = '') => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');

function matching([pattern, modifiers]: [RegExp | string, string?]): JsonSchema {
  const { source, flags } =
    pattern instanceof RegExp ? pattern : { source: pattern, flags: modifiers ?? '' };
  return flags === '' || flags === 'u' ? { ...TEXT, pattern: source } : TEXT;
}
