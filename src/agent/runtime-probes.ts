import type { FastifyInstance } from 'fastify';

export interface RuntimeProbeSources {
  /** Why; undefined when all is well. */
  readonly notReady: () => string | undefined;
  readonly notAlive: () => string | undefined;
}

/** What the probes of Spiderpool's charts ask for. */
export function runtimeRoutes(app: FastifyInstance, { notReady, notAlive }: RuntimeProbeSources): void {
  for (const [probe, reasonOf] of [
    ['startup', notReady],
    ['readiness', notReady],
    ['liveness', notAlive],
  ] as const) {
    probeRoute(app, `/v1/runtime/${probe}`, reasonOf);
  }
}

/** 200, or 500 with the reason as a JSON string. */
export function probeRoute(app: FastifyInstance, path: string, reasonOf: () => string | undefined): void {
  app.get(path, (_, reply) => {
    const reason = reasonOf();
    const answer = reason === undefined ? {} : JSON.stringify(reason);
    return reply
      .code(reason === undefined ? 200 : 500)
      .type('application/json')
      .send(answer);
  });
}
