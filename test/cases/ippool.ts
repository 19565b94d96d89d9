/** Group D: SpiderIPPool. */
import assert from 'node:assert/strict';
import type { KubeObject } from '../../src/api/kubernetes.ts';
import { spiderIPPools } from '../../src/api/resources.ts';
import { totalAddressCount } from '../../src/ipam/pool-addresses.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, defaultNetwork, fromPools, ipsOf, type Bed } from './bed.ts';

const labDefault = 'kube-system/default';

export function ippoolCases(bed: () => Bed): void {
  caseOf('D00001', 'an address that another pool has is refused', bed, async (c) => {
    const net = c.subnet();
    await c.poolOf('a', { subnet: `${net}.0/24`, ips: [`${net}.1-${net}.9`] });
    await assert.rejects(
      c.poolOf('b', { subnet: `${net}.0/24`, ips: [`${net}.9-${net}.20`] }),
      /overlap with IPPool d00001-a/,
    );
    await assert.rejects(c.poolOf('c', { subnet: `${net}.0/25`, ips: [`${net}.30`] }), /which 'spec.subnet' is/);
    await c.poolOf('d', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.20`] });
  });

  caseOf('D00002', 'routes and gateway of a changed pool reach new pods only', bed, async (c) => {
    const net = c.subnet();
    const pool = await c.poolOf('p', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.20`], gateway: `${net}.1` });
    await c.pod('old', { annotations: fromPools([pool]) });
    const body = { spec: { gateway: `${net}.2`, routes: [{ dst: '198.18.0.0/15', gw: `${net}.3` }] } };
    await c.kube.patch(spiderIPPools, { name: pool }, { type: 'merge', body });
    await c.pod('new', { annotations: fromPools([pool]) });
    const [before, after] = [await c.output('old', 'ip', 'route'), await c.output('new', 'ip', 'route')];
    assert.match(before, new RegExp(`^default via ${net}.1 dev eth0`, 'm'));
    assert.doesNotMatch(before, /198\.18/);
    assert.match(after, new RegExp(`^default via ${net}.2 dev eth0`, 'm'));
    assert.match(after, new RegExp(`^198\\.18\\.0\\.0/15 via ${net}.3 dev eth0`, 'm'));
  });

  caseOf('D00003', 'a wrong gateway or route is refused', bed, async (c) => {
    const net = c.subnet();
    const spec = { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.20`] };
    await assert.rejects(c.poolOf('a', { ...spec, gateway: '192.0.2.1' }), /spec.gateway.*not pertains to/);
    await assert.rejects(c.poolOf('b', { ...spec, gateway: `${net}.15` }), /conflicts with 'spec.gateway'/);
    await assert.rejects(
      c.poolOf('c', { ...spec, routes: [{ dst: '0.0.0.0/0', gw: `${net}.1` }] }),
      /specify 'spec.gateway'/,
    );
    await assert.rejects(
      c.poolOf('d', { ...spec, routes: [{ dst: '198.18.0.0/15', gw: '192.0.2.1' }] }),
      /not pertains to/,
    );
    await assert.rejects(
      c.poolOf('e', { ...spec, routes: [{ dst: 'nothing', gw: `${net}.1` }] }),
      /invalid CIDR format/,
    );
  });

  caseOf('D00004', 'a deleted pool stays, and hands out nothing, until its last address is back', bed, async (c) => {
    const pool = await c.pool('p');
    await c.pod('web', { annotations: fromPools([pool]) });
    await c.kube.delete(spiderIPPools, { name: pool });
    assert.ok((await c.readPool(pool)).metadata.deletionTimestamp, 'it is on its way out');
    await c.refused('late', /terminating IPPool d00004-p/, { annotations: fromPools([pool]) });
    await c.remove('late');
    await c.remove('web');
    await c.gone(spiderIPPools, pool);
  });

  caseOf('D00005', 'a disabled pool hands out nothing, and takes back', bed, async (c) => {
    const pool = await c.pool('p');
    await c.pod('web', { annotations: fromPools([pool]) });
    await c.kube.patch(spiderIPPools, { name: pool }, { type: 'merge', body: { spec: { disable: true } } });
    await c.refused('late', /disabled IPPool d00005-p/, { annotations: fromPools([pool]) });
    assert.equal((await c.records(pool)).size, 1);
    await c.remove('web');
    await c.recordsBecome(pool, 0);
  });

  caseOf('D00006', 'pools are made and deleted in batches', bed, async (c) => {
    const names = await Promise.all(Array.from({ length: 20 }, (_, n) => c.pool(`p${n}`)));
    await Promise.all(names.map((name) => c.kube.delete(spiderIPPools, { name })));
    await Promise.all(names.map((name) => c.gone(spiderIPPools, name)));
  });

  caseOf('D00007', 'a pool is made, read, changed and deleted by hand', bed, async (c) => {
    const net = c.subnet();
    const pool = await c.poolOf('p', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.14`] });
    const total = (count: number) => async (): Promise<boolean> =>
      (await c.readPool(pool)).status?.totalIPCount === count;
    await waitFor('5 addresses', total(5), { timeoutMs: 60_000 });
    const body = { spec: { ips: [`${net}.10-${net}.14`, `${net}.20-${net}.22`] } };
    await c.kube.patch(spiderIPPools, { name: pool }, { type: 'merge', body });
    await waitFor('8 addresses', total(8), { timeoutMs: 60_000 });
    const items = (await c.kube.list<KubeObject>(spiderIPPools)).items.map(({ metadata }) => metadata?.name);
    assert.ok(items.includes(pool));
    await c.kube.delete(spiderIPPools, { name: pool });
    await c.gone(spiderIPPools, pool);
  });

  caseOf('D00009', 'multusName matches: an address', bed, async (c) => {
    const pool = await c.pool('p', 2, { multusName: [labDefault] });
    await c.pod('web', { annotations: { ...fromPools([pool]), [defaultNetwork]: labDefault } });
    assert.deepEqual(await c.addressesOn('web'), [...(await c.records(pool)).keys()]);
  });

  caseOf('D00010', 'multusName does not match: no address', bed, async (c) => {
    const pool = await c.pool('p', 2, { multusName: ['kube-system/other'] });
    const message = /spec\.multusName \[kube-system\/other\] .* not matched with the multusCR kube-system\/default/;
    await c.refused('web', message, { annotations: { ...fromPools([pool]), [defaultNetwork]: labDefault } });
  });

  caseOf('D00011', 'nodeName matches: an address', bed, async (c) => {
    const pool = await c.pool('p', 2, { nodeName: ['node1'] });
    await c.pod('web', { annotations: fromPools([pool]), node: 'node1' });
    assert.deepEqual([...(await c.records(pool)).values()], [`${c.namespace}/web`]);
  });

  caseOf('D00012', 'nodeName does not match: no address', bed, async (c) => {
    const pool = await c.pool('p', 2, { nodeName: ['node1'] });
    await c.refused('web', /unmatched Node name of IPPool d00012-p/, { annotations: fromPools([pool]), node: 'node2' });
  });

  caseOf('D00013', 'nodeName beats nodeAffinity', bed, async (c) => {
    const nodeAffinity = { matchLabels: { 'kubernetes.io/hostname': 'node2' } };
    const pool = await c.pool('p', 2, { nodeName: ['node1'], nodeAffinity });
    const annotations = fromPools([pool]);
    await c.pod('web', { annotations, node: 'node1' });
    await c.refused('late', /unmatched Node name/, { annotations, node: 'node2' });
  });

  caseOf('D00014', 'namespaceName matches: an address', bed, async (c) => {
    const pool = await c.pool('p', 2, { namespaceName: [c.namespace] });
    await c.pod('web', { annotations: fromPools([pool]) });
    assert.equal((await c.records(pool)).size, 1);
  });

  caseOf('D00015', 'namespaceName does not match: no address', bed, async (c) => {
    const pool = await c.pool('p', 2, { namespaceName: ['elsewhere'] });
    await c.refused('web', /unmatched Namespace name of IPPool d00015-p/, { annotations: fromPools([pool]) });
  });

  caseOf('D00016', 'namespaceName beats namespaceAffinity', bed, async (c) => {
    const namespaceAffinity = { matchLabels: { nobody: 'has-it' } };
    const pool = await c.pool('p', 2, { namespaceName: [c.namespace], namespaceAffinity });
    const pod = await c.pod('web', { annotations: fromPools([pool]) });
    assert.deepEqual(ipsOf(pod), [...(await c.records(pool)).keys()]);
  });

  caseOf('D00017', 'a pool of 2^64 addresses has the right counts', bed, async (c) => {
    const net = c.subnet6();
    const pool = await c.poolOf('p', { subnet: `${net}::/64`, ips: [`${net}::1-${net}::ffff:ffff:ffff:ffff`] });
    // An int64, as large as one is that a JSON number of JavaScript holds.
    const count = totalAddressCount((await c.readPool(pool)).spec);
    assert.ok(count > 2 ** 62 && count < 2 ** 63);
    await waitFor('its count', async () => (await c.readPool(pool)).status?.totalIPCount === count, {
      timeoutMs: 60_000,
    });
    const pod = await c.pod('web', { annotations: fromPools([], [pool]) });
    assert.deepEqual(ipsOf(pod), [`${net}::1`]);
    assert.equal((await c.readPool(pool)).status?.allocatedIPCount, 1);
  });
}
