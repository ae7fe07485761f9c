/** What is left of a value when it has been JSON: dates are texts, functions and undefined are gone. */
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
