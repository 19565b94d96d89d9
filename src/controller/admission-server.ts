import type { FastifyInstance } from 'fastify';
import { networkAttachmentDefinitions, spiderIPPools } from '../api/resources.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { NetworkAttachmentDefinition } from '../api/spidermultusconfig.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { admitMultusConfig, mutateMultusConfig } from './admission-multus.ts';
import { mutatePool, PoolValidator } from './admission-pool.ts';
import { kubeAccess } from './kube-access.ts';
import type { ControllerOptions } from './start.ts';
import { createWebhookCertificate } from './webhook-certificate.ts';
import { webhookHosts } from './webhook-registration.ts';
import { createWebhookServer } from './webhook-server.ts';

export interface Admission {
  readonly server: FastifyInstance;
  readonly caPem: string;
}

interface AdmissionParts extends Pick<ControllerOptions, 'webhook' | 'strictSubnet'> {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The webhook server on the API client, with a certificate for every name it may be called by. */
export async function createAdmission({
  webhook,
  strictSubnet,
  client,
  clock,
  log,
}: AdmissionParts): Promise<Admission> {
  const pools = kubeAccess<SpiderIPPool>(client, spiderIPPools);
  const attachments = kubeAccess<NetworkAttachmentDefinition>(client, networkAttachmentDefinitions);
  const options = strictSubnet === undefined ? {} : { strictSubnet };
  const validator = new PoolValidator({ listPools: () => pools.list(), clock, options });
  const hosts = [
    webhook.host,
    ...(webhook.url === undefined ? [] : webhookHosts({ kind: 'url', hostPort: webhook.url })),
    ...(webhook.service === undefined ? [] : webhookHosts({ kind: 'service', ...webhook.service })),
  ];
  const certificate = await createWebhookCertificate([...new Set(hosts)], clock.nowMs());
  const server = createWebhookServer(
    {
      mutatePool: (request) => mutatePool(request, options),
      validatePool: (request) => validator.validate(request),
      mutateMultusConfig,
      validateMultusConfig: (request) =>
        admitMultusConfig(request, (namespace, name) => attachments.read(namespace, name)),
    },
    log,
    certificate,
  );
  return { server, caPem: certificate.caPem };
}
