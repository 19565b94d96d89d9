import type { Server as HttpsServer } from 'node:https';
import type { FastifyInstance } from 'fastify';
import type { Secret } from '../api/kubernetes.ts';
import { networkAttachmentDefinitions, secrets, spiderIPPools, spiderSubnets } from '../api/resources.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { NetworkAttachmentDefinition } from '../api/spidermultusconfig.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import type { Clock } from '../core/clock.ts';
import { hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { disabledFamilies, type Settings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import { AdmissionClaims } from './admission-claims.ts';
import { CertificateStore, ownSecretName, type AnnounceAuthority } from './certificate-store.ts';
import { configMapClaims } from './claim-store.ts';
import { kubeAccess } from './kube-access.ts';
import { defaultNamespace, type ControllerOptions } from './options.ts';
import { webhookHosts } from './webhook-registration.ts';
import { webhookHandlers } from './webhook-handlers.ts';
import { createWebhookServer, type WebhookHandlers } from './webhook-server.ts';

export interface Admission {
  readonly server: FastifyInstance;
  readonly certificates: CertificateStore;
  /** Reads the certificate anew and shows it from now on. With `announce` also the authority may change. */
  refresh(announce?: AnnounceAuthority): Promise<void>;
}

interface AdmissionParts extends Pick<ControllerOptions, 'webhook' | 'strictSubnet' | 'namespace' | 'signal'> {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly settings: Settings;
}

/** The webhook server on the API client, with the certificate that all controllers share. */
export async function createAdmission(parts: AdmissionParts): Promise<Admission> {
  const certificates = certificateStore(parts);
  await firstCertificate(certificates, parts);
  const server = createWebhookServer(handlers(parts), parts.log, certificates.current);
  const refresh = async (announce?: AnnounceAuthority): Promise<void> => {
    if (!(await certificates.refresh(announce))) return;
    const { keyPem: key, certificatePem: cert } = certificates.current;
    // Connections that are open keep what they were made with.
    (server.server as unknown as HttpsServer).setSecureContext({ key, cert });
    parts.log.info({}, 'webhook certificate taken into use');
  };
  return { server, certificates, refresh };
}

function certificateStore({ webhook, namespace, client, clock, log }: AdmissionParts): CertificateStore {
  const own = { namespace: namespace ?? defaultNamespace, name: ownSecretName };
  return new CertificateStore({
    secrets: kubeAccess<Secret>(client, secrets),
    secret: webhook.secret ?? own,
    isOwn: webhook.secret === undefined,
    hosts: calledBy(webhook),
    ...{ clock, log },
  });
}

/** Not where this one listens when it is called otherwise: that differs from controller to controller. */
function calledBy({ host, url, service }: ControllerOptions['webhook']): string[] {
  if (service !== undefined) return webhookHosts({ kind: 'service', ...service });
  return url === undefined ? [host] : webhookHosts({ kind: 'url', hostPort: url });
}

async function firstCertificate(certificates: CertificateStore, parts: AdmissionParts): Promise<void> {
  const { clock, log, signal } = parts;
  for (;;) {
    try {
      await certificates.refresh();
      return;
    } catch (error) {
      if (signal.aborted || !hasErrorCode(error, 'kube_unreachable')) throw error;
      log.warn({}, 'waiting for the API server');
      await clock.sleep(1000, signal);
    }
  }
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
