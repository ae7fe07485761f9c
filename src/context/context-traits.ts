/**
 * Makes a context that an older deploy enqueued into one of the class's `version`. `from` is the version that it was
 * written by, 0 where that declared none. What it returns is validated as any context is.
 */
export type Upcast = (context: any, from: number) => unknown;

/** What a class says of its contexts beside their contract. */
export interface ContextTraits {
  /** 0: none is declared. */
  version: number;
  upcast: Upcast | undefined;
  encrypt: boolean;
}

export const NO_TRAITS: ContextTraits = {
  version: 0,
  upcast: undefined,
  encrypt: false,
};
