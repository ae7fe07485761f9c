import { InvalidJobContextError } from '../job/errors.js';
import type { JsonSchema, JsonValue } from '../job/json.js';
import { fastInstance, validInstance, type ContextClass } from './class-instance.js';
import { schemaOfClass } from './class-schema.js';
import { schemaCheck } from './json-schema.js';
import { toPlainJson, type PlainJson } from './plain-json.js';

export type { ContextClass } from './class-instance.js';

/** How the contexts of a template are checked and decoded. Created once from a class or a JSON Schema. */
export interface ContextContract {
  /** As stored in the template. */
  schema: JsonSchema;
  /** Turns a stored context into what the handler gets. It throws InvalidJobContextError, or returns a promise. */
  decode: (stored: JsonValue) => unknown;
  /** Whether `decode` is synchronous and pure. A custom validator may query the database. */
  selfContained: boolean;
}

/**
 * Turns a context of an older deploy into the class's `version`. The result is validated like any context.
 * @param from the version of the context; 0 if the class that enqueued it declared none
 */
export type Upcast = (context: any, from: number) => unknown;

/** Declarations of a class about its contexts, beside their contract. */
export interface ContextTraits {
  /** 0 if none is declared. */
  version: number;
  upcast: Upcast | undefined;
  encrypt: boolean;
}

export const NO_TRAITS: ContextTraits = { version: 0, upcast: undefined, encrypt: false };

/** For templates without a context class or schema: any JSON. */
export const ANY_CONTEXT: ContextContract = {
  schema: {},
  decode: (stored) => stored,
  selfContained: true,
};

/** @throws InvalidJobSchemaError */
export function contextContract(
  context: ContextClass | JsonSchema | undefined,
  owner?: string,
): ContextContract {
  if (context === undefined) return ANY_CONTEXT;
  return typeof context === 'function'
    ? classContract(context, owner)
    : schemaContract(context, owner);
}

/**
 * Adds an operator's schema to a contract. The schema that a class declared itself is not checked again: the schema of a
 * newer deploy must not refuse contexts that this deploy's class accepts.
 */
export function withOperatorSchema(
  contract: ContextContract,
  operatorSchema: JsonSchema | null,
  owner: string,
): ContextContract {
  if (!operatorSchema) return contract;
  const { schema, decode } = schemaContract(operatorSchema, owner);
  return {
    schema,
    decode: (stored) => {
      decode(stored);
      return contract.decode(stored);
    },
    selfContained: contract.selfContained,
  };
}

/**
 * Checks a context and turns it into JSON that decodes into the same context.
 * @throws InvalidJobContextError
 */
export async function encodeContext(
  contract: ContextContract,
  context: unknown,
  maxBytes: number,
): Promise<Pick<PlainJson, 'value' | 'json'>> {
  const plain = toPlainJson(context, maxBytes);
  if (contract === ANY_CONTEXT && plain.dates.length === 0) return plain;
  const decoded = await contract.decode(plain.value);
  checkDates(plain, decoded);
  return plain;
}

function schemaContract(schema: JsonSchema, owner?: string): ContextContract {
  const check = schemaCheck(schema, owner);
  return {
    schema,
    decode: (stored) => {
      const violations = check(stored);
      if (violations.length > 0) throw new InvalidJobContextError(violations);
      return stored;
    },
    selfContained: true,
  };
}

function classContract(target: ContextClass, owner?: string): ContextContract {
  const schema = compilable(schemaOfClass(target, owner));
  const fast = fastInstance(target);
  return {
    schema,
    decode: (stored) => fast?.(stored) ?? validInstance(target, stored),
    selfContained: fast !== null,
  };
}

/** The class validates; its schema is a description. One that does not compile must not keep the app from booting. */
function compilable(schema: JsonSchema): JsonSchema {
  try {
    schemaCheck(schema);
    return schema;
  } catch {
    return { type: 'object' };
  }
}

/** A Date is stored as text. Refuses it unless the class turns the text into the same Date again. */
function checkDates({ dates }: PlainJson, decoded: unknown): void {
  const changed = dates.filter(({ path, time }) => {
    const value = path
      .split(/[.[\]]+/)
      .filter(Boolean)
      .reduce<unknown>((at, key) => (at as Record<string, unknown> | null)?.[key], decoded);
    return !(value instanceof Date && value.getTime() === time);
  });
  if (changed.length > 0)
    throw new InvalidJobContextError(
      changed.map(({ path }) => ({
        path,
        message:
          'is a Date, which the handler would get as text: pass an ISO string, or declare it with @Type(() => Date)',
      })),
    );
}
