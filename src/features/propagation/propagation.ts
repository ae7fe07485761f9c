import { capturing, restoring } from '../../lifecycle/run/propagated-context.js';
import type { ExtensionPoints } from '../../lifecycle/extension-points.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { JobEvents } from '../../job/events.js';
import type { Settings } from '../../options/settings.js';

interface Parts {
  settings: Settings;
  extensions: ExtensionPoints;
  contexts: StoredContexts;
  events: JobEvents;
}

/** The module option `carry`: values captured at enqueue travel with each job and are restored around its run. */
export function propagateContext({ settings, extensions, contexts, events }: Parts): void {
  const carriers = settings.carry;
  if (carriers.length === 0) return;
  for (const carrier of carriers) extensions.carriers.register(carrier.name, capturing(carrier));
  extensions.aroundRun.register(
    'propagation',
    restoring(carriers, contexts, (name, error) =>
      events.emit('engine.error', {
        doing: `carry.${name}: restore(), after its run`,
        error,
      }),
    ),
  );
}
