import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { envelope, type HostSetup } from '../../isolation/host-protocol.js';
import { serve } from './serve.js';

// The main script of a host thread.

const port = parentPort as MessagePort;
await serve(workerData as HostSetup, {
  // Messages of a thread arrive even when it ends right after.
  send: (message) => {
    port.postMessage(envelope(message));
    return Promise.resolve();
  },
  onMessage: (listener) => port.on('message', listener),
  exit: (code) => process.exit(code),
});
