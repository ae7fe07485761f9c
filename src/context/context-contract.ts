import { plainToInstance } from 'class-transformer';
import { validate, type ValidationError } from 'class-validator';
import { InvalidJobContextError, type ContextViolation } from '../job/errors.js';
import type { JsonSchema, JsonValue } from '../job/json.js';
import { schemaOfClass } from './class-schema.js';
import { schemaCheck } from './json-schema.js';
import { lostKeys } from './dropped-keys.js';
import { toPlainJson, type PlainJson } from './plain-json.js';
import { quickInstance } from './quick-instance.js';

/** A class with class-validator decorators. */
export type ContextClass = new (...args: any[]) => object;

const MAX_VIOLATIONS = 100;

/** What a template demands of its contexts: made once from a class or a JSON Schema, used for every job. */
export interface ContextContract {
  /** As stored in the template. */
  schema: JsonSchema;
  /** A context as stored, turned into what the handler gets, or a promise of that. @throws InvalidJobContextError, or rejects with it */
  decode: (stored: JsonValue) => unknown;
  /** Whether it decides by itself. A validator of the user's own may ask the database. */
  selfContained: boolean;
}

/** For templates that name no context: anything JSON can carry. */
export const ANY_CONTEXT: ContextContract = {
  schema: {},
  decode: (stored) => stored,
  selfContained: true,
};

/** @throws InvalidJobSchemaError when the class or the schema is unusable */
export function contextContract(
  context: ContextClass | JsonSchema | undefined,
  owner?: string,
): ContextContract {
  if (context === undefined) return ANY_CONTEXT;
  return typeof context === 'function' ? ofClass(context, owner) : ofSchema(context, owner);
}

/**
 * A contract that demands what an operator's schema demands as well. What a class declared itself is not
 * checked again: a newer deploy's schema must not refuse the contexts that this deploy's class accepts.
 */
export function narrowed(
  contract: ContextContract,
  operatorSchema: JsonSchema | null,
  owner: string,
): ContextContract {
  if (!operatorSchema) return contract;
  const { schema, decode } = ofSchema(operatorSchema, owner);
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
 * A context fit to be stored: checked against its contract, and certain to reach the handler as it
 * was given. @throws InvalidJobContextError
 */
export async function encodeContext(
  contract: ContextContract,
  context: unknown,
  maxBytes: number,
): Promise<Pick<PlainJson, 'value' | 'json'>> {
  const plain = toPlainJson(context, maxBytes);
  if (contract === ANY_CONTEXT && plain.dates.length === 0) return plain;
  const decoded = await contract.decode(plain.value);
  refuseLostDates(plain, decoded);
  return plain;
}

function ofSchema(schema: JsonSchema, owner?: string): ContextContract {
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

function ofClass(target: ContextClass, owner?: string): ContextContract {
  const schema = usable(schemaOfClass(target, owner));
  const quick = quickInstance(target);
  return {
    schema,
    decode: (stored) => quick?.(stored) ?? decodeInstance(target, stored),
    selfContained: quick !== null,
  };
}

/** The class decides where it is known: a description that nobody can use must not keep the app from booting. */
function usable(schema: JsonSchema): JsonSchema {
  try {
    schemaCheck(schema);
    return schema;
  } catch {
    return { type: 'object' };
  }
}

async function decodeInstance(target: ContextClass, stored: JsonValue): Promise<object> {
  if (typeof stored !== 'object' || stored === null || Array.isArray(stored))
    throw new InvalidJobContextError([{ path: '', message: 'must be an object' }]);
  const lost = lostKeys(stored, target);
  if (lost.length > 0) throw new InvalidJobContextError(lost.slice(0, MAX_VIOLATIONS));
  let instance: object;
  let errors: ValidationError[];
  try {
    instance = plainToInstance(target, stored);
    errors = await validate(instance, { forbidUnknownValues: true });
  } catch (error) {
    // A @Transform or a custom validator that throws on hostile input has refused it.
    throw new InvalidJobContextError([
      {
        path: '',
        message: `cannot be checked: ${error instanceof Error ? error.name : 'it throws'}`,
      },
    ]);
  }
  if (errors.length > 0)
    throw new InvalidJobContextError(
      errors.flatMap((error) => violationsOf(error, '')).slice(0, MAX_VIOLATIONS),
    );
  return instance;
}

function violationsOf(error: ValidationError, above: string): ContextViolation[] {
  const { property } = error;
  const path = /^\d+$/.test(property)
    ? `${above}[${property}]`
    : above
      ? `${above}.${property}`
      : property;
  return [
    ...Object.values(error.constraints ?? {}).map((message) => ({
      path,
      message,
    })),
    ...(error.children ?? []).flatMap((child) => violationsOf(child, path)),
  ];
}

/** A Date is faithful only where the class turns the stored text into the same Date again. */
function refuseLostDates({ dates }: PlainJson, decoded: unknown): void {
  const lost = dates.filter(({ path, time }) => {
    const back = path
      .split(/[.[\]]+/)
      .filter(Boolean)
      .reduce<unknown>((at, key) => (at as Record<string, unknown> | null)?.[key], decoded);
    return !(back instanceof Date && back.getTime() === time);
  });
  if (lost.length > 0)
    throw new InvalidJobContextError(
      lost.map(({ path }) => ({
        path,
        message:
          'is a Date, which the handler would get as text: give an ISO string, or declare it with @Type(() => Date)',
      })),
    );
}
