import fastify, { type FastifyInstance } from 'fastify';

/** /healthz: the process answers. /readyz: it does its work now; otherwise 503 with the reason. */
export function createHealthServer(notReady: () => string | undefined): FastifyInstance {
  const server = fastify({ forceCloseConnections: true });
  server.get('/healthz', async () => 'ok');
  server.get('/readyz', async (_request, reply) => {
    const reason = notReady();
    return reason === undefined ? 'ok' : reply.code(503).send(reason);
  });
  return server;
}
