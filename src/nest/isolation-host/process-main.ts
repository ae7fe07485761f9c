import { Worker } from 'node:worker_threads';
import type { HostLimits } from '../../isolation/host-protocol.js';
import { envelope, type HostSetup } from '../../isolation/host-protocol.js';
import { killGroup } from '../../isolation/start-host.js';
import type { GuardianData } from './process-guardian.js';
import { serve } from './serve.js';

// The main script of a host process.

const { setup, limits } = JSON.parse(process.argv[2]!) as {
  setup: HostSetup;
  limits: HostLimits;
};
// The node decides when its hosts end: a service manager may signal all processes, but running jobs
// are drained first.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => killGroup(process.pid));
const guardian: GuardianData = {
  parent: process.ppid,
  memoryLimit: limits.memoryLimit,
};
new Worker(new URL('./process-guardian.js', import.meta.url), {
  workerData: guardian,
}).unref();
await serve(setup, {
  send: (message) =>
    new Promise((resolve) => {
      if (process.connected) process.send!(envelope(message), () => resolve());
      else resolve();
    }),
  onMessage: (listener) => process.on('message', listener),
  exit: (code) => process.exit(code),
});
