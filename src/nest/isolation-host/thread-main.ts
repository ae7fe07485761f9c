import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { envelope, type HostSetup } from '../../isolation/host-messages.js';
import { serve } from './serve.js';

// What a thread that hosts jobs runs.

const port = parentPort as MessagePort;
await serve(workerData as HostSetup, {
  // A thread's messages reach the other side also when it ends right after.
  send: (news) => {
    port.postMessage(envelope(news));
    return Promise.resolve();
  },
  hear: (listener) => port.on('message', listener),
  exit: (code) => process.exit(code),
});
