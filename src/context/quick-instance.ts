import { TransformationType } from 'class-transformer';
import { defaultMetadataStorage } from 'class-transformer/cjs/storage.js';
import * as classValidator from 'class-validator';
import type { ValidationArguments, ValidatorConstraintInterface } from 'class-validator';
import type { JsonValue } from '../job/json.js';

type Constructor = new (...args: any[]) => object;

/** What class-validator demands of one property. */
interface Demand {
  optional: boolean;
  checks: {
    each: boolean;
    constraint: ValidatorConstraintInterface;
    constraints: unknown[];
  }[];
}

/** `IS_INT = 'isInt'`, ...: what class-validator brings itself is synchronous, pure, and may be asked twice. */
const BUILT_IN = new Set(
  Object.entries(classValidator)
    .filter(([name]) => /^[A-Z_0-9]+$/.test(name))
    .map(([, value]) => value as unknown),
);
const UNDEMANDING = 'whitelistValidation';

/**
 * Most contexts are flat and valid. For a class whose properties carry built-in validators only, this makes
 * the instance and asks those validators directly: 1.3 µs instead of 17 for two properties, for each job, twice.
 * It never refuses: where it does not accept, class-transformer and class-validator decide, and say why.
 * @returns a function that gives the instance or null; null for classes that take more than that
 */
export function quickInstance(target: Constructor): ((stored: JsonValue) => object | null) | null {
  const demands = demandsOf(target);
  if (!demands) return null;
  return (stored) => {
    if (typeof stored !== 'object' || stored === null || Array.isArray(stored)) return null;
    try {
      const instance = new target() as Record<string, unknown>;
      for (const key of Object.keys(stored)) {
        const value = stored[key]!;
        if (!demands.has(key) || !isFlat(value)) return null;
        instance[key] = Array.isArray(value) ? [...value] : value;
      }
      return satisfies(instance, target, demands) ? instance : null;
    } catch {
      return null;
    }
  };
}

function demandsOf(target: Constructor): Map<string, Demand> | null {
  const storage = classValidator.getMetadataStorage();
  const demands = new Map<string, Demand>();
  if (defaultMetadataStorage.getStrategy(target) !== 'none') return null;
  for (const metadata of storage.getTargetValidationMetadatas(target, '', false, false)) {
    const { propertyName, type, name, constraintCls, constraints } = metadata;
    if (propertyName in target.prototype || isTransformed(target, propertyName)) return null;
    const demand = demands.get(propertyName) ?? { optional: false, checks: [] };
    demands.set(propertyName, demand);
    if (type === UNDEMANDING) continue;
    if (name === undefined || !BUILT_IN.has(name) || hasCondition(metadata)) return null;
    if (name === classValidator.IS_OPTIONAL) demand.optional = true;
    else if (type !== 'customValidation') return null;
    else
      for (const found of storage.getTargetValidatorConstraints(constraintCls))
        if (found.async) return null;
        else
          demand.checks.push({
            each: metadata.each,
            constraint: found.instance,
            constraints: constraints ?? [],
          });
  }
  return demands;
}

/** `validateIf` is newer than the oldest class-validator we work with. */
const hasCondition = (metadata: object) =>
  (metadata as { validateIf?: unknown }).validateIf !== undefined;

function isTransformed(target: Constructor, property: string): boolean {
  const storage = defaultMetadataStorage;
  return Boolean(
    storage.findTypeMetadata(target, property) ??
    storage.findExposeMetadata(target, property) ??
    storage.findExcludeMetadata(target, property) ??
    storage.findTransformMetadatas(target, property, TransformationType.PLAIN_TO_CLASS)[0],
  );
}

/** What class-transformer copies as it is. */
const isFlat = (value: JsonValue): boolean =>
  typeof value !== 'object' ||
  value === null ||
  (Array.isArray(value) && value.every((item) => typeof item !== 'object' || item === null));

function satisfies(
  instance: Record<string, unknown>,
  target: Constructor,
  demands: Map<string, Demand>,
): boolean {
  for (const [property, { optional, checks }] of demands) {
    const value = instance[property];
    if (optional && (value === undefined || value === null)) continue;
    for (const { each, constraint, constraints } of checks) {
      const given: ValidationArguments = {
        targetName: target.name,
        property,
        object: instance,
        value,
        constraints,
      };
      const valid =
        each && Array.isArray(value)
          ? value.every((item) => constraint.validate(item, given) === true)
          : constraint.validate(value, given) === true;
      if (!valid) return false;
    }
  }
  return true;
}
