/** Who has an address now: the same rules as the ipcache (nodes before pods, the youngest living pod), told by name. */

import type { Party } from '../api/agent-api.ts';
import type { Node, Pod } from '../api/kubernetes.ts';
import { formatIp, type IpAddress } from '../core/ip.ts';
import { newestLast, nodeAddresses, podAddresses } from './ipcache.ts';

export class AddressBook {
  readonly #pods = new Map<string, Pod>();
  readonly #nodes = new Map<string, Node>();

  constructor(pods: Iterable<Pod>, nodes: Iterable<Node>) {
    for (const pod of pods) {
      for (const ip of podAddresses(pod)) {
        const text = formatIp(ip);
        const owner = this.#pods.get(text);
        if (owner === undefined || newestLast(owner, pod) <= 0) this.#pods.set(text, pod);
      }
    }
    for (const node of nodes) for (const ip of nodeAddresses(node)) this.#nodes.set(formatIp(ip), node);
  }

  nodeAt(ip: IpAddress): Node | undefined {
    return this.#nodes.get(formatIp(ip));
  }

  /** Undefined for a node's address, whatever a pod's status says. */
  podAt(ip: IpAddress): Pod | undefined {
    return this.nodeAt(ip) === undefined ? this.#pods.get(formatIp(ip)) : undefined;
  }

  partyAt(ip: IpAddress): Party {
    const address = formatIp(ip);
    const node = this.nodeAt(ip);
    if (node !== undefined) return { kind: 'node', address, name: node.metadata?.name ?? '' };
    const pod = this.podAt(ip);
    if (pod === undefined) return { kind: 'world', address };
    return { kind: 'pod', address, namespace: pod.metadata?.namespace ?? '', name: pod.metadata?.name ?? '' };
  }
}

/** "demo/web (10.0.0.1)", "node node1 (10.9.0.1)", "192.0.2.1". */
export function formatParty({ kind, address, namespace = '', name = '' }: Party): string {
  if (kind === 'pod') return `${namespace}/${name} (${address})`;
  return kind === 'node' ? `node ${name} (${address})` : address;
}
