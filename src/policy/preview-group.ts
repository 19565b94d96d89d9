/** Pods that no policy can tell apart, neither as subject nor as peer. */

import type { Pod } from '../api/kubernetes.ts';
import { formatPrefix, ipToPrefix, type IpFamily } from '../core/ip.ts';
import { selectorKey } from '../core/labels.ts';
import { endpointOfPod } from './compile.ts';
import type { IdentityId } from './identity.ts';
import { podAddresses } from './ipcache.ts';

export interface PodGroup {
  readonly namespace: string;
  /** "namespace/name", sorted. */
  readonly pods: readonly string[];
  /** Names of the nodes that the pods run on. */
  readonly nodes: ReadonlySet<string>;
  readonly sample: Pod;
  /** What others see them as; absent without an address of the family. */
  readonly identities: Readonly<Partial<Record<IpFamily, IdentityId>>>;
}

/** Pods that policy can protect: with an address of their own. Sorted by their first pod. */
export function groupPods(pods: readonly Pod[], ipcache: ReadonlyMap<string, IdentityId>): PodGroup[] {
  const groups = new Map<string, { readonly members: Pod[]; readonly identities: PodGroup['identities'] }>();
  for (const pod of pods) {
    const identities = identitiesOf(pod, ipcache);
    if (Object.keys(identities).length === 0) continue;
    const { namespace, labels, namedPorts } = endpointOfPod(pod);
    const key = JSON.stringify([namespace, selectorKey({ matchLabels: labels }), namedPorts, identities]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { members: [pod], identities });
    else group.members.push(pod);
  }
  const all = [...groups.values()].flatMap(({ members, identities }) => {
    const [sample] = members;
    if (sample === undefined) return [];
    const names = members.map(({ metadata }) => `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`).sort();
    const nodes = new Set(members.map(({ spec }) => spec?.nodeName ?? ''));
    return [{ namespace: sample.metadata?.namespace ?? '', pods: names, nodes, sample, identities }];
  });
  return all.sort((a, b) => ((a.pods[0] ?? '') < (b.pods[0] ?? '') ? -1 : 1));
}

function identitiesOf(pod: Pod, ipcache: ReadonlyMap<string, IdentityId>): PodGroup['identities'] {
  const identities: Partial<Record<IpFamily, IdentityId>> = {};
  for (const ip of podAddresses(pod)) {
    const identity = ipcache.get(formatPrefix(ipToPrefix(ip)));
    if (identity !== undefined) identities[ip.family] ??= identity;
  }
  return identities;
}
