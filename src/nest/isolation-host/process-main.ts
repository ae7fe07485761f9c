import { Worker } from 'node:worker_threads';
import type { HostLimits } from '../../isolation/host-link.js';
import { envelope, type HostSetup } from '../../isolation/host-messages.js';
import { killGroup } from '../../isolation/process-host.js';
import type { GuardianData } from './guardian.js';
import { serve } from './serve.js';

// What a process that hosts jobs runs.

const { setup, limits } = JSON.parse(process.argv[2]!) as {
  setup: HostSetup;
  limits: HostLimits;
};
// Its node decides when it ends: what stops a service may tell all its processes, and the jobs are to be drained.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => killGroup(process.pid));
const guardian: GuardianData = {
  parent: process.ppid,
  memoryLimit: limits.memoryLimit,
};
new Worker(new URL('./guardian.js', import.meta.url), {
  workerData: guardian,
}).unref();
await serve(setup, {
  send: (news) =>
    new Promise((resolve) => {
      if (process.connected) process.send!(envelope(news), () => resolve());
      else resolve();
    }),
  hear: (listener) => process.on('message', listener),
  exit: (code) => process.exit(code),
});
