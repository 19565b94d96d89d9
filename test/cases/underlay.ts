/** Underlay interfaces and the coordinator's keys, with pods of a lab: who reaches them, and what their namespace and their node have. */
import assert from 'node:assert/strict';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, defaultNetwork, networks, onNode, type Bed, type CaseSpace } from './bed.ts';
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
  tracesOnNode,
  underlayPools,
  wayTo,
} from './joined.ts';

/** A network on the parent interface; without pools: those of the underlay. */
function network(
  c: CaseSpace,
  name: string,
  coordinator: object = {},
  ippools: object = underlayPools,
): Promise<string> {
  return c.attachment(name, { macvlan: { master: ['ens192'], ippools }, coordinator });
}

/** Pools of both families, of subnets without a gateway. */
async function ownPools(c: CaseSpace): Promise<object> {
  return { ipv4: [await c.pool('v4')], ipv6: [await c.pool6('v6')] };
}

export function underlayCases(bed: () => Bed): void {
  reachCases(bed);
  routeCases(bed);
  keyCases(bed);
}

function reachCases(bed: () => Bed): void {
  caseOf('C00001', 'an underlay interface: the node by veth0, everybody else by the wire', bed, async (c) => {
    const use = { [defaultNetwork]: await network(c, 'first') };
    await Promise.all([
      c.pod('web', serving(use, 'node1')),
      c.pod('near', serving(use, 'node1')),
      c.pod('far', serving(use, 'node2')),
    ]);
    const eth0 = await c.addressesOn('web');
    assert.equal(eth0.length, 2, 'both families');
    await nodeReaches(c, eth0);
    await reaches(c, 'web', [...node1, ...node2, ...gateways]);
    for (const from of ['near', 'far']) for (const address of eth0) assert.equal(await asks(c, from, address), 'web');
    const text = await routing(c, 'web');
    assert.match(text, /^1000:\s+from all fwmark 0x1 lookup 100/m);
    assert.match(text, /^default via 172\.51\.0\.1 dev eth0/m);
    assert.match(text, /^default via 172\.51\.0\.11 dev veth0 table 100/m);
    assert.match(text, /^default via fd00:51::11 dev veth0 table 100/m, 'each family has its own gateway');
    assert.match(await wayTo(c, 'web', '172.51.0.11'), / dev veth0 /);
    assert.match(await wayTo(c, 'web', '172.51.0.12'), / dev eth0 /);
    await removedWithoutTrace(c, eth0, 'veth0');
  });

  caseOf('C00003', 'two underlay interfaces: eth0 keeps default route and node (C00011, C00012)', bed, async (c) => {
    const hijackCIDR = ['198.51.100.0/24'];
    const first = await network(c, 'first', { hijackCIDR });
    const second = await network(c, 'second', {}, await ownPools(c));
    const use = { [defaultNetwork]: first, [networks]: second };
    await Promise.all([c.pod('web', serving(use, 'node1')), c.pod('far', serving(use, 'node2'))]);
    const [eth0, net1] = [await c.addressesOn('web'), await c.addressesOn('web', 'net1')];
    assert.deepEqual([eth0.length, net1.length], [2, 2], 'both families on both interfaces');
    await nodeReaches(c, [...eth0, ...net1]);
    await reaches(c, 'web', [...node1, ...node2, ...gateways]);
    for (const address of [...eth0, ...net1]) assert.equal(await asks(c, 'far', address), 'web');
    const text = await routing(c, 'web');
    for (const address of net1) assert.match(text, new RegExp(`^999:\\s+from ${escaped(address)} lookup 101`, 'm'));
    assert.match(await wayTo(c, 'web', '8.8.8.8'), /via 172\.51\.0\.1 dev eth0/);
    assert.match(await wayTo(c, 'web', '2001:db8::1'), /via fd00:51::1 dev eth0/);
    const own = escaped(eth0.find((address) => !address.includes(':')));
    assert.match(await wayTo(c, 'web', '198.51.100.7'), new RegExp(`via 172\\.51\\.0\\.11 dev veth0 src ${own} `));
    assert.match(await wayTo(c, 'web', '172.51.0.11'), new RegExp(` dev veth0 src ${own} `));
    await removedWithoutTrace(c, [...eth0, ...net1], 'veth0');
  });
}

function routeCases(bed: () => Bed): void {
  caseOf('C00006', 'the default route on net1, by annotation, beside an underlay eth0', bed, async (c) => {
    const net = c.subnet();
    const spec = { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.14`], gateway: `${net}.1` };
    const first = await network(c, 'first', {}, { ipv4: [await c.poolOf('v4', spec)] });
    const use = { [defaultNetwork]: first, [networks]: await network(c, 'second'), [defaultRouteNic]: 'net1' };
    await c.pod('web', serving(use, 'node1'));
    const [eth0, net1] = [await c.addressesOn('web'), await c.addressesOn('web', 'net1')];
    assert.match(await wayTo(c, 'web', '8.8.8.8'), /via 172\.51\.0\.1 dev net1/);
    assert.match(await wayTo(c, 'web', '2001:db8::1'), /via fd00:51::1 dev net1/);
    assert.match(await wayTo(c, 'web', '8.8.8.8', eth0[0]), new RegExp(`via ${escaped(net)}\\.1 dev eth0`));
    await nodeReaches(c, [...eth0, ...net1]);
    await reaches(c, 'web', [...node1, ...node2, ...gateways]);
  });

  caseOf('C00014', 'a default route on an interface that the pod does not have is refused', bed, async (c) => {
    const annotations = { [defaultNetwork]: await network(c, 'first'), [defaultRouteNic]: 'net7' };
    await c.refused('web', /net7/, { annotations, node: 'node1' });
  });

  caseOf('C00015', 'interfaces of any name have tables by their order', bed, async (c) => {
    const first = await network(c, 'first');
    const further = await network(c, 'further', {}, await ownPools(c));
    const annotations = { [defaultNetwork]: first, [networks]: `${further}@dmz,${further}@backup` };
    await c.pod('web', serving(annotations, 'node1'));
    const [dmz, backup] = [await c.addressesOn('web', 'dmz'), await c.addressesOn('web', 'backup')];
    const text = await routing(c, 'web');
    for (const address of dmz) assert.match(text, new RegExp(`^999:\\s+from ${escaped(address)} lookup 101`, 'm'));
    for (const address of backup) assert.match(text, new RegExp(`^998:\\s+from ${escaped(address)} lookup 102`, 'm'));
    await nodeReaches(c, [...dmz, ...backup]);
  });
}

function keyCases(bed: () => Bed): void {
  caseOf('C00008', 'a MAC address of prefix and IPv4 address, by which others reach the pod', bed, async (c) => {
    const use = { [defaultNetwork]: await network(c, 'first', { podMACPrefix: '0a:1b' }) };
    await Promise.all([c.pod('web', serving(use, 'node1')), c.pod('far', serving(use, 'node2'))]);
    const eth0 = await c.addressesOn('web');
    const bytes = eth0.find((address) => !address.includes(':'))?.split('.') ?? [];
    const wanted = ['0a', '1b', ...bytes.map((byte) => Number(byte).toString(16).padStart(2, '0'))].join(':');
    assert.equal((await c.output('web', 'cat', '/sys/class/net/eth0/address')).trim(), wanted);
    for (const address of eth0) assert.equal(await asks(c, 'far', address), 'web');
    await nodeReaches(c, eth0);
  });

  caseOf('C00010', 'what another pod left on the node for an address goes', bed, async (c) => {
    const net = c.subnet();
    const address = `${net}.10`;
    const pool = await c.poolOf('v4', { subnet: `${net}.0/24`, ips: [address] });
    const annotations = { [defaultNetwork]: await network(c, 'first', {}, { ipv4: [pool] }) };
    const onNode1 = (...args: readonly string[]): Promise<string> => onNode(c.bed, 'node1', 'ip', ...args);
    await onNode1('link', 'add', 'c10-left', 'type', 'veth', 'peer', 'name', 'c10-peer');
    try {
      await onNode1('link', 'set', 'c10-left', 'up');
      await onNode1('neigh', 'add', address, 'lladdr', '02:00:00:00:00:99', 'dev', 'c10-left', 'nud', 'permanent');
      await onNode1('route', 'add', address, 'dev', 'c10-left', 'table', '500');
      await onNode1('rule', 'add', 'to', address, 'lookup', '500');
      await c.pod('web', serving(annotations, 'node1'));
      const left = (await tracesOnNode(c, [address])).filter((line) => /c10-left|^\d+:/.test(line));
      assert.deepEqual(left, []);
      await nodeReaches(c, [address]);
    } finally {
      await onNode1('link', 'del', 'c10-left');
    }
  });

  caseOf('C00016', 'hostRuleTable, and tunePodRoutes false (C00017)', bed, async (c) => {
    const first = await network(c, 'first', { hostRuleTable: 555 });
    const second = await network(c, 'second', { hostRuleTable: 555, tunePodRoutes: false }, await ownPools(c));
    await c.pod('web', serving({ [defaultNetwork]: first, [networks]: second }, 'node1'));
    const [eth0, net1] = [await c.addressesOn('web'), await c.addressesOn('web', 'net1')];
    assert.doesNotMatch(await routing(c, 'web'), /lookup 101/);
    assert.match(await onNode(c.bed, 'node1', 'ip', 'rule'), /^1000:\s+from all lookup 555/m);
    const inTable = async (): Promise<string> =>
      (await onNode(c.bed, 'node1', 'ip', 'route', 'show', 'table', '555')) +
      (await onNode(c.bed, 'node1', 'ip', '-6', 'route', 'show', 'table', '555'));
    const routes = await inTable();
    for (const address of [...eth0, ...net1]) assert.match(routes, new RegExp(`^${escaped(address)} dev veth`, 'm'));
    await nodeReaches(c, eth0);
    await c.remove('web');
    await waitFor('table 555 to be empty', async () => (await inTable()).trim() === '', patience);
  });
}
