/** Aborts when the process is asked to end. Asking twice changes nothing: npm passes on what a terminal sends to both. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => controller.abort());
  return controller.signal;
}
