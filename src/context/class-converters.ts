import type { JsonSchema } from '../job/json.js';

/** What a converter is told of a decorator. */
interface Decorator {
  constraints?: any[];
}
type Converter = JsonSchema | ((decorator: Decorator) => JsonSchema);

const TEXT: JsonSchema = { type: 'string' };
/** Text that class-validator judges with options, locales or rules that JSON Schema does not have. */
const JUDGED_TEXT =
  'isDateString isIso8601 isUrl isIp isFqdn isNumberString isBooleanString isAlpha isAlphanumeric ' +
  'isHexColor isHexadecimal isMongoId isSurrogatePair isAscii isFullWidth isHalfWidth isMultibyte isVariableWidth';
/** What class-transformer makes a Date of; null and objects give none. */
const DATE: JsonSchema = {
  description: 'a date',
  type: ['string', 'number', 'boolean'],
};
const LIST: JsonSchema = { type: 'array', items: {} };

/**
 * In place of class-validator-jsonschema's converters, where those demand more than the validator does,
 * or make schemas that do not compile.
 */
export const CONVERTERS: Record<string, Converter> = {
  ...Object.fromEntries(JUDGED_TEXT.split(' ').map((name) => [name, TEXT])),
  // A validator without a converter, the user's own ones too: nobody knows what it accepts.
  customValidation: {},
  isEmpty: { enum: ['', null] },
  isNotEmpty: { not: { enum: ['', null] } },
  isIn: ({ constraints }) => oneOf(constraints?.[0]),
  isNotIn: ({ constraints }) => {
    const refused = oneOf(constraints?.[0]);
    return refused['enum'] ? { not: refused } : {};
  },
  isEnum: ({ constraints }) => oneOf(Object.values((constraints?.[0] ?? {}) as object)),
  isDate: DATE,
  minDate: DATE,
  maxDate: DATE,
  // The standard's word for it, a hint for forms: Ajv's `email` is narrower than class-validator's.
  isEmail: { type: 'string', format: 'idn-email', pattern: '@' },
  isDivisibleBy: ({ constraints }) => divisibleBy(constraints?.[0]),
  contains: ({ constraints }) => ({
    ...TEXT,
    pattern: escaped(constraints?.[0]),
  }),
  notContains: ({ constraints }) => ({
    ...TEXT,
    not: { pattern: escaped(constraints?.[0]) },
  }),
  matches: ({ constraints }) => matching(constraints as [RegExp | string, string?]),
  // It knows objects by identity, `uniqueItems` by what they hold.
  arrayUnique: LIST,
};

/** Nothing where JSON Schema cannot say it: objects are compared by identity. */
function oneOf(values: unknown): JsonSchema {
  return Array.isArray(values) && values.length > 0 && values.every(isPrimitive)
    ? { enum: values }
    : {};
}

const isPrimitive = (value: unknown) =>
  value === null || ['string', 'number', 'boolean'].includes(typeof value);

/** As validator.js reads it: a whole number. */
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
