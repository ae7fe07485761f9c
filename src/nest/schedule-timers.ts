import { SchedulerRegistry } from '@nestjs/schedule';
import type { Timers } from '../engine/timers.js';

/** Timers in the registry of `@nestjs/schedule`, named `bildad:<schema>:<engine>:<timer>`. */
export function scheduleTimers(
  registry: SchedulerRegistry,
  prefix: string,
): Timers {
  const remove = (type: 'interval' | 'timeout', name: string) => {
    // The host's ScheduleModule clears the registry at shutdown, maybe before us.
    if (!registry.doesExist(type, name)) return;
    if (type === 'interval') registry.deleteInterval(name);
    else registry.deleteTimeout(name);
  };
  return {
    every(timer, ms, work) {
      const name = `${prefix}:${timer}`;
      const interval: unknown = setInterval(work, ms);
      registry.addInterval(name, interval);
      return () => {
        clearInterval(interval as NodeJS.Timeout);
        remove('interval', name);
      };
    },
    once(timer, ms, work) {
      const name = `${prefix}:${timer}`;
      const timeout: unknown = setTimeout(() => {
        remove('timeout', name);
        work();
      }, ms);
      registry.addTimeout(name, timeout);
      return () => {
        clearTimeout(timeout as NodeJS.Timeout);
        remove('timeout', name);
      };
    },
  };
}
