import fastify, { type FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';

/** /healthz: the process answers. /readyz: it does its work now; otherwise 503 with the reason. /metrics: Prometheus text. */
export function createHealthServer(notReady: () => string | undefined, metrics: Registry): FastifyInstance {
  const server = fastify({ forceCloseConnections: true });
  server.get('/healthz', async () => 'ok');
  server.get('/readyz', async (_request, reply) => {
    const reason = notReady();
    return reason === undefined ? 'ok' : reply.code(503).send(reason);
  });
  server.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  return server;
}
