/**
 * Underlay interfaces beside a default network that is an overlay's: Debian's `bridge` and `ptp` with `host-local`, as Calico or
 * flannel would join pod and node. What the second interfaces send and get passes the wire, what the node sends passes eth0.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { KubeObject } from '../../src/api/kubernetes.ts';
import { networkAttachmentDefinitions, networkPolicies } from '../../src/api/resources.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, defaultNetwork, networks, type Bed, type CaseSpace } from './bed.ts';
import {
  asks,
  defaultRouteNic,
  escaped,
  gateways,
  node1,
  node2,
  nodeReaches,
  patience,
  reaches,
  removedWithoutTrace,
  routing,
  serving,
  underlayPools,
  wayTo,
} from './joined.ts';

interface Overlay {
  readonly network: string;
  /** Where `host-local` keeps one file for each address. */
  readonly leases: string;
}

/** Both nodes share one `host-local` store, so that no address is there twice. */
async function overlay(c: CaseSpace, name: string, plugin: object): Promise<Overlay> {
  const dataDir = join(c.bed.dir, 'host-local');
  const ranges = [[{ subnet: `${c.subnet()}.0/24` }], [{ subnet: `${c.subnet6()}::/64` }]];
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }];
  const ipam = { type: 'host-local', dataDir, ranges, routes };
  const config = { cniVersion: '1.0.0', name: `${c.namespace}-${name}`, plugins: [{ ...plugin, ipam }, sluice] };
  await c.kube.create(networkAttachmentDefinitions, {
    metadata: { namespace: c.namespace, name },
    spec: { config: JSON.stringify(config) },
  } as KubeObject);
  return { network: `${c.namespace}/${name}`, leases: join(dataDir, config.name) };
}
const sluice = { type: 'sluice' };

export function overlayCases(bed: () => Bed): void {
  bridgeCases(bed);
  ptpCases(bed);
}

function bridgeCases(bed: () => Bed): void {
  caseOf('C00002', 'an underlay interface beside Debian’s bridge plugin, and its policy', bed, async (c) => {
    const plugin = { type: 'bridge', bridge: 'cni-c2', isGateway: true, forceAddress: true };
    const { network, leases } = await overlay(c, 'overlay', plugin);
    const second = await c.attachment('second', { macvlan: { master: ['ens192'], ippools: underlayPools } });
    const use = { [defaultNetwork]: network, [networks]: second };
    await Promise.all([
      c.pod('web', serving(use, 'node1')),
      c.pod('near', serving(use, 'node1')),
      c.pod('far', serving(use, 'node2')),
    ]);
    const [eth0, net1] = [await c.addressesOn('web'), await c.addressesOn('web', 'net1')];
    assert.deepEqual([eth0.length, net1.length], [2, 2], 'both families on both interfaces');
    await nodeReaches(c, [...eth0, ...net1]);
    await reaches(c, 'web', [...node1, ...node2, ...gateways]);
    for (const from of ['near', 'far']) for (const address of net1) assert.equal(await asks(c, from, address), 'web');
    await routesAre(c, 'web', eth0, net1);
    await policyHolds(c, net1);
    await removedWithoutTrace(c, [...eth0, ...net1], 'eth0');
    const kept = (): string[] => readdirSync(leases).filter((file) => eth0.includes(file));
    await waitFor('host-local to have its addresses back', () => Promise.resolve(kept().length === 0), patience);
  });
}

function ptpCases(bed: () => Bed): void {
  caseOf('C00004', 'two underlay interfaces beside Debian’s ptp plugin, in mode overlay', bed, async (c) => {
    const { network } = await overlay(c, 'overlay', { type: 'ptp' });
    const coordinator = { mode: 'overlay' };
    const [v4, v6] = [await c.pool('v4'), await c.pool6('v6')];
    const [second, third] = await Promise.all([
      c.attachment('second', { macvlan: { master: ['ens192'], ippools: underlayPools }, coordinator }),
      c.attachment('third', { macvlan: { master: ['ens192'], ippools: { ipv4: [v4], ipv6: [v6] } }, coordinator }),
    ]);
    const use = { [defaultNetwork]: network, [networks]: `${second},${third}@net2` };
    await Promise.all([c.pod('web', serving(use, 'node1')), c.pod('far', serving(use, 'node2'))]);
    const [eth0, net1, net2] = await Promise.all(['eth0', 'net1', 'net2'].map((name) => c.addressesOn('web', name)));
    assert.ok(eth0?.length === 2 && net1?.length === 2 && net2?.length === 2);
    await nodeReaches(c, [...eth0, ...net1, ...net2]);
    await reaches(c, 'web', [...node1, ...node2, ...gateways]);
    for (const address of [...net1, ...net2]) assert.equal(await asks(c, 'far', address), 'web');
    await routesAre(c, 'web', eth0, net1);
    const text = await routing(c, 'web');
    for (const address of net2) assert.match(text, new RegExp(`from ${escaped(address)} lookup 102`));
    assert.match(text, new RegExp(`^172\\.51\\.0\\.11 dev eth0 table 102 .*scope link`, 'm'));
    assert.match(await wayTo(c, 'web', '172.51.0.11', net2[0]), /dev eth0 table 102/);
    await removedWithoutTrace(c, [...eth0, ...net1, ...net2], 'eth0');
  });

  caseOf('C00005', 'the default route on net1, by annotation, beside Debian’s ptp plugin', bed, async (c) => {
    const { network } = await overlay(c, 'overlay', { type: 'ptp' });
    const second = await c.attachment('second', { macvlan: { master: ['ens192'], ippools: underlayPools } });
    const annotations = { [defaultNetwork]: network, [networks]: second, [defaultRouteNic]: 'net1' };
    await c.pod('web', serving(annotations, 'node1'));
    const [eth0, net1] = [await c.addressesOn('web'), await c.addressesOn('web', 'net1')];
    assert.match(await wayTo(c, 'web', '8.8.8.8'), /via 172\.51\.0\.1 dev net1/);
    assert.match(await wayTo(c, 'web', '2001:db8::1'), /via fd00:51::1 dev net1/);
    assert.match(await wayTo(c, 'web', '8.8.8.8', eth0[0]), / dev eth0 /, 'what eth0 is asked, it answers');
    await nodeReaches(c, [...eth0, ...net1]);
    await reaches(c, 'web', [...node1, ...node2, ...gateways]);
  });
}

/** As docs/reference/coordinator.md says of overlay mode: eth0 keeps the default route, net1's packets have table 101. */
async function routesAre(c: CaseSpace, pod: string, eth0: readonly string[], net1: readonly string[]): Promise<void> {
  const text = await routing(c, pod);
  for (const address of eth0) assert.match(text, new RegExp(`from ${escaped(address)} lookup 100`));
  for (const address of net1) assert.match(text, new RegExp(`from ${escaped(address)} lookup 101`));
  assert.match(text, /^default via 172\.51\.0\.1 dev net1 table 101/m);
  assert.match(text, /^172\.51\.0\.11 dev eth0 .*scope link/m);
  assert.match(await wayTo(c, pod, '8.8.8.8'), / dev eth0 /);
  assert.match(await wayTo(c, pod, '8.8.8.8', net1[0]), /via 172\.51\.0\.1 dev net1/);
  assert.match(await wayTo(c, pod, '2001:db8::1'), / dev eth0 /);
}

/** Lets in `far` on port 80 and nobody else, by its addresses on the second network: selectors mean pods of other nodes by podIPs only. */
async function policyHolds(c: CaseSpace, net1: readonly string[]): Promise<void> {
  const from = (await c.addressesOn('far', 'net1')).map((ip) => ({
    ipBlock: { cidr: `${ip}/${ip.includes(':') ? 128 : 32}` },
  }));
  await c.kube.create(networkPolicies, {
    metadata: { namespace: c.namespace, name: 'web' },
    spec: { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from, ports: [{ port: 80 }] }] },
  } as KubeObject);
  const asksIn = (pod: string, ip: string, port: number) => () => asks(c, pod, ip, port, 2);
  const denied = net1.flatMap((ip) => [asksIn('near', ip, 80), asksIn('far', ip, 81)]);
  const isClosed = async (): Promise<boolean> => (await Promise.all(denied.map((ask) => ask()))).join('') === '';
  await waitFor('what the policy does not allow to be closed', isClosed, patience);
  for (const address of net1) assert.equal(await asks(c, 'far', address), 'web');
  await nodeReaches(c, net1);
}
