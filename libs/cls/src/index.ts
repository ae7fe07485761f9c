import type { JobCarrier, JsonValue } from 'nestjs-bildad';
import { CLS_ID, ClsServiceManager, type ClsStore } from 'nestjs-cls';

export interface CarryClsOptions<S extends ClsStore = ClsStore> {
  /** Names of values in the store, or paths into objects (`'user.id'`). The values must be plain JSON. */
  keys: readonly (Extract<keyof S, string> | (string & {}))[];
  /** Whether the id of the context (`cls.getId()`) travels, too. Default `true`. */
  id?: boolean;
}

interface CarriedCls {
  id?: JsonValue;
  values: Record<string, JsonValue>;
}

/**
 * Carries values of nestjs-cls from the call that enqueues a job to its runs; use it in the module option `carry`. Each run has a
 * context of its own with only these values, even if the job carries none: values of the call that started
 * the run are not visible. A job that is enqueued outside of any context carries nothing.
 */
export function carryCls<S extends ClsStore = ClsStore>({
  keys,
  id = true,
}: CarryClsOptions<S>): JobCarrier<CarriedCls> {
  const cls = ClsServiceManager.getClsService();
  return {
    capture: () => {
      if (!cls.isActive()) return undefined;
      const contextId: JsonValue | undefined = id ? cls.getId() : undefined;
      const carried: CarriedCls = { values: {} };
      if (contextId !== undefined) carried.id = contextId;
      for (const key of keys) {
        const value = cls.get<JsonValue | undefined>(key);
        if (value !== undefined) carried.values[key] = value;
      }
      return carried;
    },
    restore: (carried, next) =>
      cls.runWith({}, () => {
        if (carried?.id !== undefined) cls.set(CLS_ID, carried.id);
        for (const [key, value] of Object.entries(carried?.values ?? {})) cls.set(key, value);
        return next();
      }),
  };
}
