import fastify, { type FastifyInstance } from 'fastify';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { admissionReview, parseAdmissionReview, type AdmissionRequest, type AdmissionResponse } from './admission.ts';
import type { WebhookCertificate } from './webhook-certificate.ts';

/** The HTTPS side of admission. Paths are the ones Spiderpool serves. */

const base = 'spiderpool-spidernet-io-v2beta1';

export const webhookPaths = {
  mutatePool: `/mutate-${base}-spiderippool`,
  validatePool: `/validate-${base}-spiderippool`,
  mutateSubnet: `/mutate-${base}-spidersubnet`,
  validateSubnet: `/validate-${base}-spidersubnet`,
  mutateReservedIp: `/mutate-${base}-spiderreservedip`,
  validateReservedIp: `/validate-${base}-spiderreservedip`,
  mutateCoordinator: `/mutate-${base}-spidercoordinator`,
  validateCoordinator: `/validate-${base}-spidercoordinator`,
  mutateMultusConfig: `/mutate-${base}-spidermultusconfig`,
  validateMultusConfig: `/validate-${base}-spidermultusconfig`,
} as const;

/** GET: answers when the webhooks do. */
export const webhookHealthPath = '/webhook-health-check';

export type WebhookHandlers = Record<
  keyof typeof webhookPaths,
  (request: AdmissionRequest) => AdmissionResponse | Promise<AdmissionResponse>
>;

/** An object of etcd's largest size, twice (object and oldObject), and what is around it. */
const bodyLimitBytes = 4 * 1024 * 1024;

/** Without a certificate the server speaks HTTP, which only tests want. */
export function createWebhookServer(
  handlers: WebhookHandlers,
  log: Logger,
  certificate?: WebhookCertificate,
): FastifyInstance {
  const options = { bodyLimit: bodyLimitBytes, forceCloseConnections: true };
  const server: FastifyInstance =
    certificate === undefined
      ? fastify(options)
      : fastify({
          ...options,
          https: { key: certificate.keyPem, cert: certificate.certificatePem },
        });
  for (const name of Object.keys(webhookPaths) as (keyof typeof webhookPaths)[]) {
    server.post(webhookPaths[name], async (request, reply) => {
      const admission = parseAdmissionReview(request.body);
      if (admission === undefined)
        return reply.code(400).send({ error: 'the body is not an AdmissionReview of admission.k8s.io/v1' });
      const response = await handlers[name](admission);
      log.debug({ webhook: name, object: admission.name, allowed: response.allowed }, 'admission reviewed');
      return admissionReview(response);
    });
  }
  server.get(webhookHealthPath, async () => 'ok');
  // An error here becomes a refusal by failurePolicy Fail, with this text in the API server's answer.
  server.setErrorHandler((error, _request, reply) => {
    log.error({ error: formatErrorChain(error) }, 'admission review failed');
    return reply.code(500).send({ error: formatErrorChain(error) });
  });
  return server;
}
