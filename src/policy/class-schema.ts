import { defaultMetadataStorage } from 'class-transformer/cjs/storage.js';
import { getMetadataStorage } from 'class-validator';
import { targetConstructorToSchema } from 'class-validator-jsonschema';
import { InvalidJobSchemaError } from '../model/errors.js';
import type { JsonSchema } from '../model/json.js';

type Constructor = new (...args: any[]) => object;

const DEFS = '#/$defs/';
const UNDEMANDING = ['nestedValidation', 'whitelistValidation'];

/**
 * The JSON Schema that a class-validator class stands for, nested classes under `$defs`: what is
 * stored in the template, for operators, forms, and processes that only enqueue.
 * @throws InvalidJobSchemaError when the class has no class-validator decorators
 */
export function schemaOfClass(target: Constructor, owner?: string): JsonSchema {
  if (
    getMetadataStorage().getTargetValidationMetadatas(target, '', false, false)
      .length === 0
  )
    throw new InvalidJobSchemaError(
      `class ${target.name} has no class-validator decorators`,
      owner,
    );
  const defs = new Map<Constructor, { name: string; schema?: JsonSchema }>();
  const schema = describe(target, defs);
  return defs.size === 0
    ? schema
    : {
        ...schema,
        $defs: Object.fromEntries(
          [...defs.values()].map((def) => [def.name, def.schema]),
        ),
      };
}

function describe(
  target: Constructor,
  defs: Map<Constructor, { name: string; schema?: JsonSchema }>,
): JsonSchema {
  const schema = targetConstructorToSchema(target, {
    refPointerPrefix: DEFS,
    classTransformerMetadataStorage: defaultMetadataStorage,
  }) as JsonSchema;
  const properties = (schema['properties'] ?? {}) as Record<string, JsonSchema>;
  const conditional = conditionalProperties(target);
  const skippable = skippableProperties(target);
  for (const [property, member] of Object.entries(properties)) {
    const nested = nestedClass(target, property);
    if (nested && JSON.stringify(member).includes(DEFS)) {
      const { name } = defs.get(nested) ?? register(nested, defs);
      repoint(member, nested.name, name);
    }
    // @IsOptional lets null through and @ValidateIf depends on code: JSON Schema must not refuse what the class accepts.
    const condition = conditional.get(property);
    if (condition === 'isOptional')
      properties[property] = { anyOf: [member, { type: 'null' }] };
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
    if (key === '$ref' && value === DEFS + from)
      (schema as JsonSchema)[key] = DEFS + to;
    else repoint(value, from, to);
}

function nestedClass(
  target: Constructor,
  property: string,
): Constructor | undefined {
  const type = defaultMetadataStorage.findTypeMetadata(target, property);
  return (type?.typeFunction?.() ?? type?.reflectedType) as
    Constructor | undefined;
}

function conditionalProperties(target: Constructor): Map<string, string> {
  return new Map(
    getMetadataStorage()
      .getTargetValidationMetadatas(target, '', false, false)
      .filter(({ type }) => type === 'conditionalValidation')
      .map(({ propertyName, name }) => [propertyName, name ?? 'validateIf']),
  );
}

/** Properties of which class-validator demands nothing when they are missing: @ValidateNested or @Allow alone. */
function skippableProperties(target: Constructor): Set<string> {
  const metadata = getMetadataStorage().getTargetValidationMetadatas(
    target,
    '',
    false,
    false,
  );
  const demanding = new Set(
    metadata
      .filter(({ type }) => !UNDEMANDING.includes(type))
      .map(({ propertyName }) => propertyName),
  );
  return new Set(
    metadata
      .map(({ propertyName }) => propertyName)
      .filter((property) => !demanding.has(property)),
  );
}
