/** What long-running commands share: a logger, and a signal that is aborted when the process is asked to end. */
import { pino, type Logger } from 'pino';

/** JSON lines on stderr; `level` is pino's (debug, info, warn, error). */
export function createLogger(component: string, level: string): Logger {
  return pino(
    { level, base: { component }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  );
}

/** Aborted by the first SIGTERM or SIGINT; the second one ends the process as usual. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => stop.abort(new Error(`received ${signal}`)));
  return stop.signal;
}
