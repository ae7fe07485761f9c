import { capturing, restoring } from '../../lifecycle/run/propagated-context.js';
import type { Seams } from '../../lifecycle/extension-points.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { JobEvents } from '../../job/events.js';
import type { SurroundingsSettings } from '../../options/propagation-options.js';

interface Parts {
  settings: SurroundingsSettings;
  seams: Seams;
  contexts: StoredContexts;
  events: JobEvents;
}

/** What the module's `carry` says: it travels with each job, and is there again while that runs. */
export function carry({ settings, seams, contexts, events }: Parts): void {
  const carriers = settings.carry;
  if (carriers.length === 0) return;
  for (const carrier of carriers) seams.carry(capturing(carrier));
  seams.onRun(
    restoring(carriers, contexts, (name, error) =>
      events.emit('engine.error', {
        doing: `carry.${name}: restore(), after its run`,
        error,
      }),
    ),
  );
}
