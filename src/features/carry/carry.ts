import { capturing, restoring } from '../../life/run/restore.js';
import type { Seams } from '../../life/seams.js';
import type { StoredContexts } from '../../life/stored-contexts.js';
import type { JobEvents } from '../../model/events.js';
import type { SurroundingsSettings } from '../../model/surroundings-options.js';

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
