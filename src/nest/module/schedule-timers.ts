import { SchedulerRegistry } from '@nestjs/schedule';
import { MAX_TIMER_MS, type Ticker } from '../../concurrency/timers.js';

/** Intervals in the registry of `@nestjs/schedule`, named `bildad:<schema>:<engine>:<interval>`, for operators to list. */
export function scheduleTicker(registry: SchedulerRegistry, prefix: string): Ticker {
  return {
    every(interval, ms, work) {
      const name = `${prefix}:${interval}`;
      const timer: unknown = setInterval(work, Math.min(ms, MAX_TIMER_MS));
      registry.addInterval(name, timer);
      return () => {
        clearInterval(timer as NodeJS.Timeout);
        // The host's ScheduleModule may have emptied the registry before us.
        if (registry.doesExist('interval', name)) registry.deleteInterval(name);
      };
    },
  };
}
