export type JsonValue =
  null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

/** A JSON Schema, as stored in a template's `jobContextSchema`. */
export type JsonSchema = Record<string, unknown>;

/** The type of a value after a round trip through JSON: dates are text, functions and undefined are removed. */
export type Stored<T> = T extends { toJSON(): infer J }
  ? Stored<J>
  : T extends string | number | boolean | null
    ? T
    : T extends undefined | void
      ? null
      : T extends (...args: never[]) => unknown
        ? never
        : T extends readonly (infer Item)[]
          ? Stored<Item>[]
          : T extends object
            ? {
                [
                  K in keyof T as T[K] extends (...args: never[]) => unknown ? never : K
                ]: undefined extends T[K]
                  ? Stored<Exclude<T[K], undefined>> | undefined
                  : Stored<T[K]>;
              }
            : unknown;
