/**
 * C00013: a node port as kube-proxy programs it (nftables in the node's namespace), asked by a client that only the
 * node has a route to. With externalTrafficPolicy Local the pod sees the client; its own default route leads past the node, to a
 * gateway that forwards nothing, so the answer has to go back through veth0.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import type { FlowEvent } from '../../src/api/agent-api.ts';
import type { KubeObject } from '../../src/api/kubernetes.ts';
import { networkPolicies } from '../../src/api/resources.ts';
import { createNamedNetns, removeNamedNetns } from '../../src/kernel/netns.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, ipsOf, netnsOf, onNode, onSwitch, sluiceJson, type Bed, type CaseSpace } from './bed.ts';
import { node1, patience } from './joined.ts';

const [v4Node = '', v6Node = ''] = node1;
const node = { 4: v4Node, 6: v6Node } as const;
const client = { 4: '203.0.113.5', 6: '2001:db8:13::5' } as const;
const nodePort = 30_013;
/** Says whom it sees. */
const server = "require('net').createServer((s)=>{s.on('error',()=>{});s.end(s.remoteAddress+'\\n')}).listen(80,'::')";

/** KUBE-SVC and KUBE-EXT of one endpoint: both policies translate, Cluster masquerades too. */
async function program(c: CaseSpace, pods: readonly string[], policy: 'Local' | 'Cluster'): Promise<void> {
  const [v4 = '', v6 = ''] = pods;
  const mark = policy === 'Cluster' ? 'meta mark set 0x4000' : '';
  const match = `fib daddr type local tcp dport ${nodePort} ${mark}`;
  const chains = [
    'type nat hook prerouting priority dstnat;',
    `meta nfproto ipv4 ${match} dnat ip to ${v4}:80;`,
    `meta nfproto ipv6 ${match} dnat ip6 to [${v6}]:80;`,
  ].join(' ');
  const out = 'type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade;';
  await onNode(c.bed, 'node1', 'nft', `table inet kube_c13 { chain in { ${chains} }; chain out { ${out} }; }`);
}

async function unprogram(c: CaseSpace): Promise<void> {
  // `destroy` is newer than Debian's nft 1.0.6.
  await onNode(c.bed, 'node1', 'nft', 'delete', 'table', 'inet', 'kube_c13').catch(() => undefined);
}

/** On the underlay's wire with an address that only the node has a route to. */
async function clientOnWire(c: CaseSpace, path: string): Promise<void> {
  createNamedNetns(path);
  const port = `ip link add c13 type veth peer name eth0 netns ${basename(path)}; ip link set c13 master br0 up`;
  await onSwitch(c.bed, 'sh', '-ec', port);
  const own = `
    ip link set eth0 up; ip addr add ${client[4]}/32 dev eth0; ip addr add ${client[6]}/128 dev eth0 nodad
    ip route add ${node[4]} dev eth0 src ${client[4]}; ip -6 route add ${node[6]} dev eth0 src ${client[6]}`;
  await inside(path, 'sh', '-ec', own);
  const back = `ip route add ${client[4]} dev ens192; ip -6 route add ${client[6]} dev ens192`;
  await onNode(c.bed, 'node1', 'sh', '-ec', back);
}

/** The routes go with the lab, or here. */
async function clientGone(c: CaseSpace, path: string): Promise<void> {
  const routes = `ip route del ${client[4]} dev ens192; ip -6 route del ${client[6]} dev ens192`;
  await onNode(c.bed, 'node1', 'sh', '-c', routes).catch(() => undefined);
  await onSwitch(c.bed, 'ip', 'link', 'del', 'c13').catch(() => undefined);
  removeNamedNetns(path);
}

async function inside(path: string, ...command: readonly string[]): Promise<string> {
  return (await promisify(execFile)('nsenter', [`--net=${path}`, ...command], { timeout: 60_000 })).stdout;
}

/** Whom the pod sees; empty: no answer. */
async function seen(path: string, host: string, seconds: number): Promise<string> {
  const script = `exec 3<>/dev/tcp/${host}/${nodePort}; cat <&3`;
  const answer = await inside(path, 'timeout', String(seconds), 'bash', '-c', script).catch(() => '');
  return answer.trim().replace('::ffff:', '');
}

export function nodePortCases(bed: () => Bed): void {
  caseOf('C00013', 'a node port, externalTrafficPolicy Local and Cluster, and its policy', bed, async (c) => {
    const path = netnsOf(c.bed, 'c13');
    try {
      await clientOnWire(c, path);
      const run = { name: 'c', image: 'none', command: [process.execPath, '-e', server] };
      const web = ipsOf(await c.pod('web', { spec: { containers: [run], nodeName: 'node1' } }));
      const becomes = (host: string, wanted: string): Promise<void> => {
        const isSo = async (): Promise<boolean> => (await seen(path, host, wanted === '' ? 2 : 10)) === wanted;
        return waitFor(`${host} to answer "${wanted}"`, isSo, patience);
      };
      await program(c, web, 'Cluster');
      for (const family of [4, 6] as const) {
        let whom = '';
        const isAnswered = async (): Promise<boolean> => (whom = await seen(path, node[family], 10)) !== '';
        await waitFor(`an answer of ${node[family]}`, isAnswered, patience);
        assert.notEqual(whom, client[family], 'masqueraded');
      }
      await unprogram(c);
      await program(c, web, 'Local');
      for (const family of [4, 6] as const) await becomes(node[family], client[family]);
      await admits(c, ['198.51.100.0/24']);
      for (const family of [4, 6] as const) await becomes(node[family], '');
      for (const family of [4, 6] as const) await counted(c, client[family]);
      await admits(c, [`${client[4]}/32`, `${client[6]}/128`]);
      for (const family of [4, 6] as const) await becomes(node[family], client[family]);
    } finally {
      await unprogram(c);
      await clientGone(c, path);
    }
  });
}

function counted(c: CaseSpace, from: string): Promise<void> {
  const isThere = async (): Promise<boolean> => {
    const events = (await sluiceJson(
      c.bed,
      'drops',
      '--pod',
      `${c.namespace}/web`,
      '--reason',
      'policy',
    )) as FlowEvent[];
    return events.some(({ source }) => source?.address === from);
  };
  return waitFor(`a drop from ${from}`, isThere, patience);
}

async function admits(c: CaseSpace, cidrs: readonly string[]): Promise<void> {
  const ref = { namespace: c.namespace, name: 'web' };
  if ((await c.kube.find(networkPolicies, ref)) !== undefined) await c.kube.delete(networkPolicies, ref);
  const from = cidrs.map((cidr) => ({ ipBlock: { cidr } }));
  const spec = { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from }] };
  await c.kube.create(networkPolicies, { metadata: ref, spec } as KubeObject);
}
