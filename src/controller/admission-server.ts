import type { FastifyInstance } from 'fastify';
import { networkAttachmentDefinitions, spiderIPPools, spiderSubnets } from '../api/resources.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { NetworkAttachmentDefinition } from '../api/spidermultusconfig.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { disabledFamilies, type Settings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import { AdmissionClaims } from './admission-claims.ts';
import { configMapClaims } from './claim-store.ts';
import { kubeAccess } from './kube-access.ts';
import { defaultNamespace, type ControllerOptions } from './options.ts';
import { createWebhookCertificate } from './webhook-certificate.ts';
import { webhookHosts } from './webhook-registration.ts';
import { webhookHandlers } from './webhook-handlers.ts';
import { createWebhookServer, type WebhookHandlers } from './webhook-server.ts';

export interface Admission {
  readonly server: FastifyInstance;
  readonly caPem: string;
}

interface AdmissionParts extends Pick<ControllerOptions, 'webhook' | 'strictSubnet' | 'namespace'> {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly settings: Settings;
}

/** The webhook server on the API client, with a certificate for every name it may be called by. */
export async function createAdmission(parts: AdmissionParts): Promise<Admission> {
  const { webhook, clock, log } = parts;
  const hosts = [
    webhook.host,
    ...(webhook.url === undefined ? [] : webhookHosts({ kind: 'url', hostPort: webhook.url })),
    ...(webhook.service === undefined ? [] : webhookHosts({ kind: 'service', ...webhook.service })),
  ];
  const certificate = await createWebhookCertificate([...new Set(hosts)], clock.nowMs());
  const server = createWebhookServer(handlers(parts), log, certificate);
  return { server, caPem: certificate.caPem };
}

function handlers({ client, clock, settings, strictSubnet, namespace }: AdmissionParts): WebhookHandlers {
  const attachments = kubeAccess<NetworkAttachmentDefinition>(client, networkAttachmentDefinitions);
  return webhookHandlers({
    listPools: () => kubeAccess<SpiderIPPool>(client, spiderIPPools).list(),
    listSubnets: () => kubeAccess<SpiderSubnet>(client, spiderSubnets).list(),
    readAttachment: (inNamespace, name) => attachments.read(inNamespace, name),
    claims: new AdmissionClaims(configMapClaims(client, namespace ?? defaultNamespace), clock),
    options: {
      strictSubnet,
      disabledFamilies: disabledFamilies(settings),
      subnetsEnabled: settings.enableSpiderSubnet,
      refuseDeletion: settings.enableValidatingResourcesDeletedWebhook,
    },
  });
}
