import type { KubeObject } from '../api/kubernetes.ts';
import {
  mutatingWebhookConfigurations,
  validatingWebhookConfigurations,
  type GroupVersionResource,
} from '../api/resources.ts';
import { spiderGroup } from '../api/spider.ts';
import { describeRef, type KubeClient } from '../kube/client.ts';
import { registrationName } from './webhook-registration.ts';

/** Other controllers of the same resources, Spiderpool's own among them: by the webhooks that they registered. */

export const webhookConfigurations: readonly GroupVersionResource[] = [
  validatingWebhookConfigurations,
  mutatingWebhookConfigurations,
];

interface Registration extends KubeObject {
  readonly webhooks?: readonly { readonly rules?: readonly { readonly apiGroups?: readonly string[] }[] }[];
}

/** "ValidatingWebhookConfiguration spiderpool-controller". */
export async function otherControllers(client: KubeClient): Promise<string[]> {
  const lists = await Promise.all(webhookConfigurations.map(async (gvr) => ({ gvr, list: await client.listAll(gvr) })));
  return lists.flatMap(({ gvr, list }) =>
    list.items
      .filter((one) => one.metadata?.name !== registrationName && reviewsOurs(one))
      .map(({ metadata }) => describeRef(gvr, { name: metadata?.name })),
  );
}

/** A rule for every group is a policy engine's. */
function reviewsOurs({ webhooks = [] }: Registration): boolean {
  return webhooks.some(({ rules = [] }) => rules.some(({ apiGroups = [] }) => apiGroups.includes(spiderGroup)));
}
