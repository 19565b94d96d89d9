/** Who reaches a pod's interfaces, by which way, and what is left on the node when the pod is gone. */
import assert from 'node:assert/strict';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { onNode, type CaseSpace } from './bed.ts';

export const patience = { timeoutMs: 60_000 };
/** Pools of the underlay, with a gateway that answers. */
export const underlayPools = { ipv4: ['lab-default-v4'], ipv6: ['lab-default-v6'] };
export const node1 = ['172.51.0.11', 'fd00:51::11'];
export const node2 = ['172.51.0.12', 'fd00:51::12'];
export const gateways = ['172.51.0.1', 'fd00:51::1'];

export const defaultRouteNic = 'ipam.spidernet.io/default-route-nic';

/** Answers with its name on ports 80 and 81. */
export function serving(annotations: Readonly<Record<string, string>>, node: string) {
  const ports = [{ containerPort: 80 }, { containerPort: 81 }];
  return { annotations, node, spec: { containers: [{ name: 'c', image: 'none', ports }], nodeName: node } };
}

/** In time: Debian's plugins wait for duplicate address detection only where there is a gateway. */
export async function reaches(c: CaseSpace, pod: string, addresses: readonly string[]): Promise<void> {
  for (const address of addresses)
    await answers(address, async () => (await c.exec(pod, ...ping, address)).exitCode === 0);
}

export async function nodeReaches(c: CaseSpace, addresses: readonly string[]): Promise<void> {
  for (const address of addresses)
    await answers(address, async () => (await onNode(c.bed, 'node1', ...ping, address)) !== '');
}

const ping = ['ping', '-c', '1', '-W', '2'];

function answers(address: string, isReached: () => Promise<boolean>): Promise<void> {
  return waitFor(`an answer of ${address}`, isReached, patience);
}

/** What answers on the port; empty: nobody. */
export async function asks(c: CaseSpace, pod: string, address: string, port = 80, seconds = 10): Promise<string> {
  const host = address.includes(':') ? `[${address}]` : address;
  return (await c.exec(pod, 'curl', '-sg', '-m', String(seconds), `http://${host}:${port}/`)).stdout.trim();
}

/** Both families, in the order in which the pod has them. */
export async function routing(c: CaseSpace, pod: string): Promise<string> {
  return c.output(pod, 'sh', '-c', 'ip rule; ip -6 rule; ip route show table all; ip -6 route show table all');
}

export async function wayTo(c: CaseSpace, pod: string, address: string, from?: string): Promise<string> {
  return c.output(pod, 'ip', 'route', 'get', address, ...(from === undefined ? [] : ['from', from]));
}

export function escaped(address = ''): string {
  return address.replaceAll('.', '\\.');
}

/** Everything on node1 that is about these addresses: routes, rules, permanent neighbours. */
export async function tracesOnNode(c: CaseSpace, addresses: readonly string[]): Promise<string[]> {
  const look = 'for f in -4 -6; do ip $f rule; ip $f route show table all; ip $f neigh show nud permanent; done';
  const lines = (await onNode(c.bed, 'node1', 'sh', '-c', look)).split('\n');
  return lines.filter((line) => addresses.some((address) => line.split(/\s/).includes(address)));
}

/** The pod `web` on node1, which is reached by these addresses, through the veth pair that is called `door` in it. */
export async function removedWithoutTrace(
  c: CaseSpace,
  addresses: readonly string[],
  door: 'eth0' | 'veth0',
): Promise<void> {
  const half = await hostHalf(c, 'web', door);
  assert.ok((await nodeLinks(c)).includes(half) && (await tracesOnNode(c, addresses)).length > 0);
  await c.remove('web');
  const gone = async (): Promise<boolean> => {
    const left = [...(await tracesOnNode(c, addresses)), ...(await nodeLinks(c)).filter((index) => index === half)];
    return left.length === 0;
  };
  await waitFor('the node to be as before', gone, patience);
}

/** The index of the node's half of the pair. */
async function hostHalf(c: CaseSpace, pod: string, door: string): Promise<string> {
  return (await c.output(pod, 'cat', `/sys/class/net/${door}/iflink`)).trim();
}

async function nodeLinks(c: CaseSpace): Promise<string[]> {
  return [...(await onNode(c.bed, 'node1', 'ip', '-o', 'link')).matchAll(/^(\d+):/gm)].map(([, index = '']) => index);
}
