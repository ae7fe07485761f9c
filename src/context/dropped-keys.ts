import { defaultMetadataStorage } from 'class-transformer/cjs/storage.js';
import type { ContextViolation } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';

type Constructor = new (...args: any[]) => object;

/**
 * The keys that class-transformer would drop without a word: those that are a function on what it makes
 * (`toString` of every object, methods), and those of which the class has a getter and no setter.
 */
export function lostKeys(stored: JsonValue, target: Constructor): ContextViolation[] {
  return lostOf(stored, target.prototype as object, target, '');
}

function lostOf(
  value: JsonValue,
  prototype: object,
  target: Constructor | undefined,
  above: string,
): ContextViolation[] {
  if (typeof value !== 'object' || value === null) return [];
  if (Array.isArray(value))
    return value.flatMap((item, index) =>
      lostOf(item, Object.prototype, undefined, `${above}[${index}]`),
    );
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = above ? `${above}.${key}` : key;
    return isDropped(prototype, propertyOf(target, key))
      ? [{ path, message: 'is a key that class-transformer would drop' }]
      : lostOf(inner, Object.prototype, undefined, path);
  });
}

/** The property that a key becomes: @Expose may name another one. */
function propertyOf(target: Constructor | undefined, key: string): string {
  const exposed = target && defaultMetadataStorage.findExposeMetadataByCustomName(target, key);
  return exposed?.propertyName ?? key;
}

function isDropped(prototype: object, property: string): boolean {
  for (
    let at: object | null = prototype;
    at !== null;
    at = Object.getPrototypeOf(at) as object | null
  ) {
    const found = Object.getOwnPropertyDescriptor(at, property);
    if (found)
      return (
        typeof found.value === 'function' || (found.get !== undefined && found.set === undefined)
      );
  }
  return false;
}
