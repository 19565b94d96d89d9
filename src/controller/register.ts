import type { KubeObject } from '../api/kubernetes.ts';
import {
  mutatingWebhookConfigurations,
  validatingWebhookConfigurations,
  type GroupVersionResource,
} from '../api/resources.ts';
import { hasErrorCode } from '../core/error.ts';
import type { KubeClient } from '../kube/client.ts';
import {
  mutatingConfiguration,
  registrationName,
  validatingConfiguration,
  type WebhookAddress,
  type WebhookConfiguration,
} from './webhook-registration.ts';

/** Tells the API server where the webhooks are and whom to trust; replaces what an earlier start left. */
export async function registerWebhooks(
  client: KubeClient,
  address: WebhookAddress,
  caPem: string,
  refuseDeletion = false,
): Promise<void> {
  await apply(client, validatingWebhookConfigurations, validatingConfiguration(address, caPem, refuseDeletion));
  await apply(client, mutatingWebhookConfigurations, mutatingConfiguration(address, caPem));
}

async function apply(client: KubeClient, gvr: GroupVersionResource, desired: WebhookConfiguration): Promise<void> {
  const attempts = 5;
  for (let attempt = 1; ; attempt++) {
    try {
      const actual = await find(client, gvr);
      if (actual === undefined) await client.create(gvr, desired);
      else await client.replace(gvr, { ...actual, ...desired, metadata: actual.metadata });
      return;
    } catch (error) {
      if (attempt >= attempts || !hasErrorCode(error, 'kube_conflict')) throw error;
    }
  }
}

async function find(client: KubeClient, gvr: GroupVersionResource): Promise<KubeObject | undefined> {
  try {
    return await client.get(gvr, { name: registrationName });
  } catch (error) {
    if (hasErrorCode(error, 'kube_not_found')) return undefined;
    throw error;
  }
}
