import { ENVELOPE } from './envelope.js';
import { InvalidJobContextError, type ContextViolation } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';

/** Deeper contexts are refused: PostgreSQL's own limit (54001) depends on its stack. */
const MAX_DEPTH = 100;
const MAX_VIOLATIONS = 100;

export interface PlainJson {
  /** The context as plain JSON values, sharing nothing with what came in. */
  value: JsonValue;
  json: string;
  /** Where Dates became ISO strings. Decoding must turn them into the same Dates. */
  dates: { path: string; time: number }[];
}

/**
 * Copies a context as plain JSON. Values that JSON or jsonb would change silently (NaN, BigInt, Map, NUL, lone
 * surrogates, holes, ...) are violations. Only `undefined` properties are left out: they read the same afterwards.
 * @param limit the option that sets `maxBytes`, for the error
 * @throws InvalidJobContextError
 */
export function toPlainJson(
  context: unknown,
  maxBytes: number,
  limit = 'maxContextBytes',
): PlainJson {
  const walk = new Walk(maxBytes);
  const value = walk.copy(context, '', 0);
  if (walk.violations.length > 0) throw new InvalidJobContextError(walk.violations);
  const json = walk.tooLarge ? '' : JSON.stringify(value);
  if (walk.tooLarge || Buffer.byteLength(json) > maxBytes)
    throw new InvalidJobContextError([
      { path: '', message: `is larger than ${maxBytes} bytes of JSON (${limit})` },
    ]);
  return { value, json, dates: walk.dates };
}

class Walk {
  readonly violations: ContextViolation[] = [];
  readonly dates: PlainJson['dates'] = [];
  private readonly above = new Set<object>();
  /** A lower bound of the JSON's size so far. The outermost value has no comma. */
  private bytes = -1;

  constructor(private readonly maxBytes: number) {}

  /** Checked while copying: references that are shared at each of forty levels would be copied 2^40 times. */
  get tooLarge(): boolean {
    return this.bytes > this.maxBytes;
  }

  copy(value: unknown, path: string, depth: number): JsonValue {
    // A character and a comma, or two brackets.
    this.bytes += 2;
    if (this.tooLarge) return null;
    switch (typeof value) {
      case 'boolean':
        return value;
      case 'string':
        this.bytes += value.length;
        return this.string(value, path);
      case 'number':
        return this.number(value, path);
      case 'object':
        return value === null ? null : this.object(value, path, depth);
      default:
        return this.refuse(path, `is a ${typeof value}, which JSON cannot carry`);
    }
  }

  private number(value: number, path: string): JsonValue {
    return Number.isFinite(value)
      ? // Turns -0, which JSON cannot represent, into 0.
        value + 0
      : this.refuse(path, `is ${value}, which JSON cannot carry`);
  }

  private string(value: string, path: string): JsonValue {
    if (value.includes('\0'))
      return this.refuse(path, 'holds a NUL character, which PostgreSQL cannot store');
    if (!value.isWellFormed())
      return this.refuse(path, 'holds a lone surrogate, which PostgreSQL cannot store');
    return value;
  }

  private object(value: object, path: string, depth: number): JsonValue {
    if (depth >= MAX_DEPTH) return this.refuse(path, `lies deeper than ${MAX_DEPTH} levels`);
    if (this.above.has(value)) return this.refuse(path, 'refers back to itself');
    this.above.add(value);
    try {
      if (value instanceof Date) return this.date(value, path);
      return Array.isArray(value)
        ? this.array(value, path, depth)
        : this.record(value, path, depth);
    } catch (error) {
      return this.refuse(
        path,
        `cannot be read: ${error instanceof Error ? error.name : 'it throws'}`,
      );
    } finally {
      this.above.delete(value);
    }
  }

  private date(value: Date, path: string): JsonValue {
    const time = value.getTime();
    if (Number.isNaN(time)) return this.refuse(path, 'is an invalid Date');
    this.dates.push({ path, time });
    return value.toISOString();
  }

  private array(value: unknown[], path: string, depth: number): JsonValue {
    const copy: JsonValue[] = [];
    for (let index = 0; index < value.length && !this.full; index++)
      copy.push(this.copy(value[index], `${path}[${index}]`, depth + 1));
    return copy;
  }

  private record(value: object, path: string, depth: number): JsonValue {
    const kind = foreignKind(value);
    if (kind) return this.refuse(path, `is a ${kind}, which JSON cannot carry`);
    if (Object.getOwnPropertySymbols(value).length > 0)
      return this.refuse(path, 'has a symbol as key, which JSON cannot carry');
    const copy: Record<string, JsonValue> = {};
    for (const key of Object.keys(value)) {
      if (this.full) break;
      const at = path ? `${path}.${key}` : key;
      if (key === '__proto__' || (key === ENVELOPE && depth === 0)) {
        this.refuse(at, 'is not allowed as a key');
        continue;
      }
      const member = (value as Record<string, unknown>)[key];
      if (member === undefined) continue;
      this.bytes += key.length + 3;
      this.string(key, at);
      copy[key] = this.copy(member, at, depth + 1);
    }
    return copy;
  }

  private get full(): boolean {
    return this.tooLarge || this.violations.length >= MAX_VIOLATIONS;
  }

  private refuse(path: string, message: string): null {
    if (!this.full) this.violations.push({ path: printable(path), message });
    return null;
  }
}

/** The type of an object that is more than its own properties (Map, Buffer, a Decimal, ...), else null. */
function foreignKind(value: object): string | null {
  const tag = Object.prototype.toString.call(value).slice(8, -1);
  if (tag !== 'Object') return tag;
  return typeof (value as { toJSON?: unknown }).toJSON === 'function'
    ? `${value.constructor?.name ?? 'value'} with a toJSON of its own`
    : null;
}

const printable = (path: string) => path.replaceAll('\0', '\uFFFD').toWellFormed().slice(0, 300);
