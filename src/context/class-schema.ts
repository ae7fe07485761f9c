import { TransformationType } from 'class-transformer';
import { defaultMetadataStorage } from 'class-transformer/cjs/storage.js';
import * as classValidator from 'class-validator';
import { getMetadataStorage } from 'class-validator';
import { targetConstructorToSchema } from 'class-validator-jsonschema';
import { InvalidJobSchemaError } from '../job/errors.js';
import type { JsonSchema } from '../job/json.js';
import { CONVERTERS } from './class-converters.js';

type Constructor = new (...args: any[]) => object;

const DEFS = '#/$defs/';
const UNDEMANDING = ['nestedValidation', 'whitelistValidation'];
/** They accept what is missing. What the user's own validators do with it, nobody knows. */
const LENIENT = ['isEmpty', 'notEquals', 'isNotIn'];
const BUILT_IN = new Set<unknown>(Object.values(classValidator));

/**
 * The JSON Schema that a class-validator class stands for, nested classes under `$defs`: what is
 * stored in the template, for operators, forms, and processes that only enqueue.
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

/** The class decides where it is known: one that cannot be described must not keep the app from booting. */
function converted(target: Constructor): JsonSchema {
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

/** A member that Ajv could not compile is described as anything, the others stay. */
function dropUnusable(schema: JsonSchema, known: Set<string>): void {
  const properties = (schema['properties'] ?? {}) as Record<string, JsonSchema>;
  for (const [property, member] of Object.entries(properties))
    if (!isUsable(member, known)) properties[property] = {};
}

function isUsable(schema: unknown, known: Set<string>): boolean {
  if (typeof schema !== 'object' || schema === null) return true;
  return Object.entries(schema).every(([key, value]) => {
    if (key === '$ref') return known.has(value as string);
    if (key === 'pattern' && typeof value === 'string') return compiles(value);
    return isUsable(value, known);
  });
}

function compiles(pattern: string): boolean {
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
  const schema = converted(target);
  const properties = (schema['properties'] ?? {}) as Record<string, JsonSchema>;
  const conditional = conditionalProperties(target);
  const skippable = skippableProperties(target);
  for (const property of defaulted(target)) skippable.add(property);
  for (const [property, member] of Object.entries(properties)) {
    const nested = nestedClass(target, property);
    if (nested && JSON.stringify(member).includes(DEFS)) {
      const { name } = defs.get(nested) ?? register(nested, defs);
      repoint(member, nested.name, name);
    }
    if (isTurned(target, property)) {
      properties[property] = {};
      continue;
    }
    // @IsOptional lets null through and @ValidateIf depends on code: JSON Schema must not refuse what the class accepts.
    const condition = conditional.get(property);
    if (condition === 'isOptional') properties[property] = { anyOf: [member, { type: 'null' }] };
    else if (condition) properties[property] = {};
  }
  const required = (schema['required'] as string[] | undefined)?.filter(
    (property) => !skippable.has(property),
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
  // Known before it is described, so that a class that contains itself ends.
  defs.set(nested, def);
  def.schema = describe(nested, defs);
  return def;
}

/** References name classes only: two classes of one name must not become one definition. */
function repoint(schema: unknown, from: string, to: string): void {
  if (typeof schema !== 'object' || schema === null) return;
  for (const [key, value] of Object.entries(schema))
    if (key === '$ref' && value === DEFS + from) (schema as JsonSchema)[key] = DEFS + to;
    else repoint(value, from, to);
}

function nestedClass(target: Constructor, property: string): Constructor | undefined {
  const type = defaultMetadataStorage.findTypeMetadata(target, property);
  try {
    return (type?.typeFunction?.() ?? type?.reflectedType) as Constructor | undefined;
  } catch {
    return undefined;
  }
}

/** What is stored is not what the decorators look at. */
function isTurned(target: Constructor, property: string): boolean {
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

/** Properties of which class-validator demands nothing when they are missing, as with @ValidateNested or @Allow alone. */
function skippableProperties(target: Constructor): Set<string> {
  const metadata = getMetadataStorage().getTargetValidationMetadatas(target, '', false, false);
  const demanding = new Set(
    metadata
      .filter(
        ({ type, name }) =>
          !UNDEMANDING.includes(type) &&
          (type !== 'customValidation' || (BUILT_IN.has(name) && !LENIENT.includes(name!))),
      )
      .map(({ propertyName }) => propertyName),
  );
  return new Set(
    metadata.map(({ propertyName }) => propertyName).filter((property) => !demanding.has(property)),
  );
}

/** Properties that have a value before a context gives them one. */
function defaulted(target: Constructor): string[] {
  try {
    return Object.entries(new target())
      .filter(([, value]) => value !== undefined)
      .map(([property]) => property);
  } catch {
    return [];
  }
}
