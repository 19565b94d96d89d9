/** The agent's HTTP endpoints: /healthz, /readyz, /metrics, and Spiderpool's probes. No endpoint changes anything. */
import fastify, { type FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import { runtimeRoutes } from './runtime-probes.ts';

export interface HealthSources {
  /** Component → why it is not ready; an empty list means ready. */
  readonly readiness: () => Readonly<Record<string, readonly string[]>>;
  /** Component → why the process should be restarted. */
  readonly liveness: () => Readonly<Record<string, readonly string[]>>;
  readonly metrics: Registry;
}

/** Built without a listener, so that tests can inject requests. */
export function buildHealthServer(sources: HealthSources): FastifyInstance {
  const app = fastify({ logger: false, forceCloseConnections: true });
  app.get('/healthz', (_, reply) => reply.code(statusOf(sources.liveness())).send(report(sources.liveness())));
  app.get('/readyz', (_, reply) => reply.code(statusOf(sources.readiness())).send(report(sources.readiness())));
  app.get('/metrics', async (_, reply) =>
    reply.type(sources.metrics.contentType).send(await sources.metrics.metrics()),
  );
  runtimeRoutes(app, {
    notReady: () => firstReason(sources.readiness()),
    notAlive: () => firstReason(sources.liveness()),
  });
  return app;
}

/** "127.0.0.1:9879", "[::1]:9879" or ":9879". */
export function parseListenAddress(text: string): { readonly host: string; readonly port: number } | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:]*)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) return undefined;
  return { host: match[1] ?? (match[2] === '' ? '::' : (match[2] ?? '::')), port };
}

function firstReason(components: Readonly<Record<string, readonly string[]>>): string | undefined {
  const [first] = Object.entries(components).flatMap(([name, reasons]) => reasons.map((why) => `${name}: ${why}`));
  return first;
}

function statusOf(components: Readonly<Record<string, readonly string[]>>): number {
  return Object.values(components).every((reasons) => reasons.length === 0) ? 200 : 503;
}

function report(components: Readonly<Record<string, readonly string[]>>): object {
  const entries = Object.entries(components).map(([name, reasons]) => [
    name,
    reasons.length === 0 ? { ok: true } : { ok: false, reasons },
  ]);
  return { ok: statusOf(components) === 200, components: Object.fromEntries(entries) as object };
}
