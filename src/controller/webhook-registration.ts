import { spiderGroup, spiderVersion } from '../api/spider.ts';
import { webhookPaths } from './webhook-server.ts';

/** The objects that make the API server call the webhooks. Status updates are not reviewed: agents write those. */

export const registrationName = 'sluice-controller';

/** A few seconds: a review takes milliseconds, and the user waits for it. */
const timeoutSeconds = 5;

export type WebhookAddress =
  /** "host:port" as the API server reaches it. */
  | { readonly kind: 'url'; readonly hostPort: string }
  | { readonly kind: 'service'; readonly namespace: string; readonly name: string; readonly port: number };

/** Names the certificate must be valid for. */
export function webhookHosts(address: WebhookAddress): string[] {
  if (address.kind === 'service')
    return [`${address.name}.${address.namespace}.svc`, `${address.name}.${address.namespace}`];
  return [new URL(`https://${address.hostPort}`).hostname.replace(/^\[|\]$/g, '')];
}

export interface WebhookConfiguration {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly resourceVersion?: string };
  readonly webhooks: readonly object[];
}

const written = ['CREATE', 'UPDATE'] as const;

const reviewed = [
  { name: 'spiderippool', mutate: 'mutatePool', validate: 'validatePool', deletion: true },
  { name: 'spidersubnet', mutate: 'mutateSubnet', validate: 'validateSubnet', deletion: true },
  { name: 'spiderreservedip', mutate: 'mutateReservedIp', validate: 'validateReservedIp', deletion: false },
  { name: 'spidercoordinator', mutate: 'mutateCoordinator', validate: 'validateCoordinator', deletion: false },
  { name: 'spidermultusconfig', mutate: 'mutateMultusConfig', validate: 'validateMultusConfig', deletion: false },
] as const;

export function mutatingConfiguration(address: WebhookAddress, caPem: string): WebhookConfiguration {
  const webhooks = reviewed.map(({ name, mutate }) => ({
    ...webhook(`${name}.mutate`, `${name}s`, written, address, webhookPaths[mutate], caPem),
    reinvocationPolicy: 'Never',
  }));
  return configuration('MutatingWebhookConfiguration', webhooks);
}

/** Deletions are reviewed only when some are to be refused: else none should depend on a controller being there. */
export function validatingConfiguration(
  address: WebhookAddress,
  caPem: string,
  refuseDeletion = false,
): WebhookConfiguration {
  const webhooks = reviewed.map(({ name, validate, deletion }) => {
    const operations = refuseDeletion && deletion ? [...written, 'DELETE'] : written;
    return webhook(`${name}.validate`, `${name}s`, operations, address, webhookPaths[validate], caPem);
  });
  return configuration('ValidatingWebhookConfiguration', webhooks);
}

function configuration(kind: string, webhooks: readonly object[]): WebhookConfiguration {
  return { apiVersion: 'admissionregistration.k8s.io/v1', kind, metadata: { name: registrationName }, webhooks };
}

function webhook(
  name: string,
  resource: string,
  operations: readonly string[],
  address: WebhookAddress,
  path: string,
  caPem: string,
): object {
  return {
    name: `${name}.${spiderGroup}`,
    admissionReviewVersions: ['v1'],
    clientConfig: { ...target(address, path), caBundle: Buffer.from(caPem).toString('base64') },
    rules: [{ apiGroups: [spiderGroup], apiVersions: [spiderVersion], resources: [resource], operations, scope: '*' }],
    failurePolicy: 'Fail',
    matchPolicy: 'Equivalent',
    // A validator leaves a claim of what it admitted for a few seconds; a dry run leaves no trace.
    sideEffects: 'NoneOnDryRun',
    timeoutSeconds,
  };
}

function target(address: WebhookAddress, path: string): object {
  if (address.kind === 'url') return { url: `https://${address.hostPort}${path}` };
  const { namespace, name, port } = address;
  return { service: { namespace, name, port, path } };
}
