import type { KubeObject } from '../api/kubernetes.ts';
import {
  mutatingWebhookConfigurations,
  validatingWebhookConfigurations,
  type GroupVersionResource,
} from '../api/resources.ts';
import { hasErrorCode } from '../core/error.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import {
  mutatingConfiguration,
  registrationName,
  validatingConfiguration,
  type WebhookAddress,
  type WebhookConfiguration,
} from './webhook-registration.ts';

/** Tells the API server where the webhooks are and whom to trust, unless it knows; puts right what somebody else wrote. */
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
      const actual = await unlessNotFound(client.get<KubeObject>(gvr, { name: registrationName }));
      if (actual === undefined) await client.create(gvr, desired);
      else if (!says(actual, { webhooks: desired.webhooks }))
        await client.replace(gvr, { ...actual, ...desired, metadata: actual.metadata });
      return;
    } catch (error) {
      if (attempt >= attempts || !hasErrorCode(error, 'kube_conflict')) throw error;
    }
  }
}

/** Whether the object has all that is desired; the API server adds defaults to it. */
export function says(actual: unknown, desired: unknown): boolean {
  if (typeof desired !== 'object' || desired === null) return actual === desired;
  if (typeof actual !== 'object' || actual === null) return false;
  if (Array.isArray(desired) && (!Array.isArray(actual) || actual.length !== desired.length)) return false;
  return Object.entries(desired).every(([key, value]) => says((actual as Record<string, unknown>)[key], value));
}
