/** The cluster of a case at one moment: what the actions have made of it, as the objects that the oracle takes. */

import type { Namespace, NetworkPolicy, NetworkPolicyPeer, Node, Pod } from '../../src/api/kubernetes.ts';
import { bitsOf, formatPrefix, makePrefix, parseIp, type IpAddress, type IpFamily } from '../../src/core/ip.ts';
import type { Labels } from '../../src/core/labels.ts';
import type { World } from '../../src/policy/oracle.ts';
import {
  namespaceNames,
  podNames,
  portName,
  protocols,
  servedPorts,
  type Action,
  type AroundPod,
  type PodName,
  type SuitePeer,
  type SuitePolicy,
  type SuiteRule,
} from './case.ts';

export const families: readonly IpFamily[] = [4, 6];

/** A pod's address of each family. */
export type Addressing = (pod: PodName) => Readonly<Record<IpFamily, string>>;

/** Addresses for tests without pods: z/c's last four bits give the "except" blocks some pods inside and some outside. */
export function plannedAddressing(): Addressing {
  const numbers = new Map(podNames.map((pod, index) => [pod, 11 + index]));
  return (pod) => {
    const number = numbers.get(pod) ?? 11 + numbers.size;
    numbers.set(pod, number);
    return { 4: `10.1.0.${number}`, 6: `fd00:1::${number.toString(16)}` };
  };
}

export const initialNamespaceLabels = (namespace: string): Labels => ({ ns: namespace });
export const initialPodLabels = (pod: PodName): Labels => ({ pod: splitName(pod).name });

export function splitName(pod: PodName): { readonly namespace: string; readonly name: string } {
  const [namespace = '', name = ''] = pod.split('/');
  return { namespace, name };
}

export class Scene {
  readonly nodes: readonly Node[] = [
    { metadata: { name: 'node1' }, status: { addresses: [{ type: 'InternalIP', address: '10.9.0.1' }] } },
  ];
  readonly #addressing: Addressing;
  readonly #namespaces = new Map<string, Labels>(namespaceNames.map((name) => [name, initialNamespaceLabels(name)]));
  readonly #pods = new Map<PodName, Labels>(podNames.map((pod) => [pod, initialPodLabels(pod)]));
  readonly #policies = new Map<string, NetworkPolicy>();

  constructor(addressing: Addressing) {
    this.#addressing = addressing;
  }

  get podNames(): readonly PodName[] {
    return [...this.#pods.keys()].sort();
  }

  addressOf(pod: PodName, family: IpFamily): IpAddress {
    return parseIp(this.#addressing(pod)[family]) as IpAddress;
  }

  apply(action: Action): void {
    switch (action.do) {
      case 'create policy':
      case 'update policy':
        this.#policies.set(`${action.policy.namespace}/${action.policy.name}`, this.bind(action.policy));
        return;
      case 'delete policy':
        this.#policies.delete(`${action.namespace}/${action.name}`);
        return;
      case 'create namespace':
      case 'label namespace':
        this.#namespaces.set(action.namespace, action.labels);
        return;
      case 'delete namespace':
        this.#namespaces.delete(action.namespace);
        for (const pod of this.podNames) if (splitName(pod).namespace === action.namespace) this.#pods.delete(pod);
        return;
      case 'create pod':
      case 'label pod':
        this.#pods.set(action.pod, action.labels);
        return;
      case 'delete pod':
        this.#pods.delete(action.pod);
        return;
    }
  }

  /** The object that the API gets: prefixes around pods become those of their addresses. */
  bind({ namespace, name, pods, ingress, egress }: SuitePolicy): NetworkPolicy {
    const peersOf = (rule: SuiteRule): NetworkPolicyPeer[] | undefined => rule.peers?.flatMap((p) => this.#bindPeer(p));
    const types = [...(ingress === undefined ? [] : ['Ingress']), ...(egress === undefined ? [] : ['Egress'])];
    return {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { namespace, name, uid: `${namespace}/${name}` },
      spec: {
        podSelector: pods,
        policyTypes: types,
        ...(ingress && { ingress: ingress.map((rule) => ({ from: peersOf(rule), ports: rule.ports })) }),
        ...(egress && { egress: egress.map((rule) => ({ to: peersOf(rule), ports: rule.ports })) }),
      },
    };
  }

  world(): World {
    return {
      pods: this.podNames.map((pod) => this.pod(pod)),
      namespaces: [...this.#namespaces].map(([name, labels]): Namespace => ({
        metadata: { name, labels: { ...labels, 'kubernetes.io/metadata.name': name } },
      })),
      nodes: this.nodes,
      policies: [...this.#policies.values()],
      nodeName: 'node1',
    };
  }

  pod(pod: PodName): Pod {
    const podIPs = families.map((family) => ({ ip: this.#addressing(pod)[family] }));
    return {
      metadata: { ...splitName(pod), uid: pod, labels: this.#pods.get(pod) ?? {} },
      spec: { nodeName: 'node1', containers: [{ name: 'server', ports: servedContainerPorts }] },
      status: { phase: 'Running', podIP: podIPs[0]?.ip ?? '', podIPs },
    };
  }

  #bindPeer(peer: SuitePeer): NetworkPolicyPeer[] {
    if ('cidrs' in peer) return peer.cidrs.map((cidr) => ({ ipBlock: { cidr } }));
    return 'around' in peer ? families.map((family) => this.#bindAround(peer, family)) : [peer];
  }

  #bindAround({ around, size, exceptHostBits }: AroundPod, family: IpFamily): NetworkPolicyPeer {
    const address = this.addressOf(around, family);
    const block = (prefixLen: number): string => formatPrefix(makePrefix(address, prefixLen));
    const cidr = block('hostBits' in size ? bitsOf(family) - size.hostBits : size.prefixLen);
    if (exceptHostBits === undefined) return { ipBlock: { cidr } };
    return { ipBlock: { cidr, except: [block(bitsOf(family) - exceptHostBits)] } };
  }
}

export const servedContainerPorts = servedPorts.flatMap((containerPort) =>
  protocols.map((protocol) => ({ name: portName(containerPort, protocol), containerPort, protocol })),
);
