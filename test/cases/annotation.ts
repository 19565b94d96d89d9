/** Group A: pools and routes by annotation. */
import assert from 'node:assert/strict';
import { deployments, pods as podsResource, statefulSets } from '../../src/api/resources.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import {
  caseOf,
  defaultNetwork,
  fromPools,
  ippool,
  ippools,
  ipsOf,
  networks,
  type Bed,
  type CaseSpace,
} from './bed.ts';
import { podTemplate, workload } from './workloads.ts';

const routes = 'ipam.spidernet.io/routes';
const namespacePools = 'ipam.spidernet.io/default-ipv4-ippool';

/** `[{"interface", "ipv4"}…]`, with interface names or in their order. */
function perInterface(...elements: readonly object[]): Record<string, string> {
  return { [ippools]: JSON.stringify(elements) };
}

/** A second interface without pools of its own, beside the lab's default one. */
async function secondNetwork(c: CaseSpace, ippoolsOfConf?: object): Promise<string> {
  const macvlan = { master: ['ens192'], ...(ippoolsOfConf && { ippools: ippoolsOfConf }) };
  return c.attachment('second', { macvlan, enableCoordinator: false });
}

export function annotationCases(bed: () => Bed): void {
  sourceCases(bed);
  interfaceCases(bed);
  statefulCases(bed);
}

function sourceCases(bed: () => Bed): void {
  caseOf(
    'A00003',
    'invalid annotations: the pod fails, and the message names annotation and mistake',
    bed,
    async (c) => {
      const pool = await c.pool('p');
      const wrong: readonly (readonly [string, string, RegExp])[] = [
        [ippool, '{', /wrong input, invalid format of Pod annotation 'ipam\.spidernet\.io\/ippool'/],
        [ippool, '{"ipv4":"p"}', /wrong input/],
        [ippool, '{"ipv4":["missing-pool"]}', /missing-pool.* not found/],
        [ippool, `{"ipv4":["${pool}","${pool}"]}`, /duplicate IPPool/],
        [ippools, '[]', /at least one item/],
        [ippools, `[{"interface":"eth0","ipv4":["${pool}"]},{"ipv4":["${pool}"]}]`, /all specified or all unspecified/],
        [routes, 'nothing', /wrong input, invalid format of Pod annotation 'ipam\.spidernet\.io\/routes'/],
      ];
      const one = ([key, value, message]: (typeof wrong)[number], n: number): Promise<void> =>
        c.refused(`p${n}`, message, { annotations: { ...(key === routes && fromPools([pool])), [key]: value } });
      await Promise.all(wrong.map(one));
      assert.equal((await c.records(pool)).size, 0, 'nothing is left of the failed ADDs');
    },
  );

  caseOf('A00004', 'pod annotation > namespace annotation > CNI configuration', bed, async (c) => {
    const [ofPod, ofNamespace, ofConf] = [await c.pool('pod'), await c.pool('ns'), await c.pool('conf')];
    const network = await c.attachment('net', { macvlan: { master: ['ens192'], ippools: { ipv4: [ofConf] } } });
    const annotated = await c.addNamespace(`${c.namespace}-n`, {
      annotations: { [namespacePools]: JSON.stringify([ofNamespace]) },
    });
    const use = { [defaultNetwork]: network };
    await Promise.all([
      c.pod('a', { namespace: annotated, annotations: { ...use, ...fromPools([ofPod]) } }),
      c.pod('b', { namespace: annotated, annotations: use }),
      c.pod('c', { annotations: use }),
    ]);
    assert.deepEqual([...(await c.records(ofPod)).values()], [`${annotated}/a`]);
    assert.deepEqual([...(await c.records(ofNamespace)).values()], [`${annotated}/b`]);
    assert.deepEqual([...(await c.records(ofConf)).values()], [`${c.namespace}/c`]);
  });

  caseOf('A00005', 'ippools beats ippool', bed, async (c) => {
    const [one, two] = [await c.pool('one'), await c.pool('two')];
    await c.pod('web', { annotations: { ...fromPools([one]), ...perInterface({ interface: 'eth0', ipv4: [two] }) } });
    assert.deepEqual([(await c.records(one)).size, (await c.records(two)).size], [0, 1]);
  });

  caseOf('A00006', 'namespace annotation beats the cluster’s default pools', bed, async (c) => {
    const own = await c.pool('own');
    const ofCluster = await c.pool('default', 5, { default: true });
    const network = await c.attachment('bare');
    const annotated = await c.addNamespace(`${c.namespace}-n`, {
      annotations: { [namespacePools]: JSON.stringify([own]) },
    });
    await Promise.all([
      c.pod('a', { namespace: annotated, annotations: { [defaultNetwork]: network } }),
      c.pod('b', { annotations: { [defaultNetwork]: network } }),
    ]);
    assert.deepEqual([...(await c.records(own)).values()], [`${annotated}/a`]);
    assert.deepEqual([...(await c.records(ofCluster)).values()], [`${c.namespace}/b`]);
  });

  caseOf('A00007', 'wildcards in a namespace annotation', bed, async (c) => {
    await c.pool('other');
    const pool = await c.pool('blue-1');
    const annotated = await c.addNamespace(`${c.namespace}-n`, {
      annotations: { [namespacePools]: '["a00007-blue-?"]' },
    });
    await c.pod('web', { namespace: annotated });
    assert.deepEqual([...(await c.records(pool)).values()], [`${annotated}/web`]);
  });

  caseOf('A00008', 'a pod of several containers has one address, and all containers share it', bed, async (c) => {
    const pool = await c.pool('p');
    const container = (name: string) => ({ name, image: 'none', command: ['sleep', '100000'] });
    const spec = { containers: [container('a'), container('b')] };
    const [ip = '', ...more] = ipsOf(await c.pod('web', { annotations: fromPools([pool]), spec }));
    assert.deepEqual([[ip], more], [[...(await c.records(pool)).keys()], []]);
    for (const name of ['a', 'b']) {
      const ref = { namespace: c.namespace, name: 'web', container: name };
      const { stdout } = await c.bed.cluster.exec(ref, ['ip', '-o', 'addr', 'show', 'dev', 'eth0'], 60_000);
      assert.ok(stdout.includes(`inet ${ip}/24 `), `container ${name}: ${stdout}`);
    }
  });

  caseOf('A00015', 'wildcards in ippools, in name order', bed, async (c) => {
    const [one, two] = [await c.pool('x-1', 1), await c.pool('x-2', 1)];
    const annotations = perInterface({ interface: 'eth0', ipv4: ['a00015-x-*'] });
    await c.pod('a', { annotations });
    assert.deepEqual([(await c.records(one)).size, (await c.records(two)).size], [1, 0]);
    await c.pod('b', { annotations });
    assert.equal((await c.records(two)).size, 1, 'a full pool is followed by the next');
  });
}

function interfaceCases(bed: () => Bed): void {
  caseOf('A00002', 'routes of a pod go to the interface whose subnet has their gateway', bed, async (c) => {
    const [net, net2] = [c.subnet(), c.subnet()];
    const one = await c.poolOf('one', { subnet: `${net}.0/24`, ips: [`${net}.10`], gateway: `${net}.1` });
    const two = await c.poolOf('two', { subnet: `${net2}.0/24`, ips: [`${net2}.10`] });
    const second = await secondNetwork(c);
    const own = [
      { dst: '198.18.0.0/16', gw: `${net}.2` },
      { dst: '198.19.0.0/16', gw: `${net2}.2` },
    ];
    const pools = perInterface({ interface: 'eth0', ipv4: [one] }, { interface: 'net1', ipv4: [two] });
    await c.pod('web', { annotations: { ...pools, [networks]: second, [routes]: JSON.stringify(own) } });
    const table = await c.output('web', 'ip', 'route');
    assert.match(table, new RegExp(`^198\\.18\\.0\\.0/16 via ${net}.2 dev eth0`, 'm'));
    assert.match(table, new RegExp(`^198\\.19\\.0\\.0/16 via ${net2}.2 dev net1`, 'm'));
  });

  caseOf('A00010', 'changed pools of a Deployment with two interfaces', bed, async (c) => {
    const [a, b, a2, b2] = await Promise.all(['a', 'b', 'a2', 'b2'].map((name) => c.pool(name)));
    const second = await secondNetwork(c);
    const use = (one = '', two = ''): Record<string, string> => ({
      ...perInterface({ interface: 'eth0', ipv4: [one] }, { interface: 'net1', ipv4: [two] }),
      [networks]: second,
    });
    await workload(c, deployments, 'web', { annotations: use(a, b), replicas: 1 });
    await c.readyPods('web', 1);
    const body = { spec: { template: podTemplate('web', { annotations: use(a2, b2) }) } };
    await c.kube.patch(deployments, { namespace: c.namespace, name: 'web' }, { type: 'merge', body });
    for (const [pool = '', count] of [
      [a2, 1],
      [b2, 1],
      [a, 0],
      [b, 0],
    ] as const)
      await c.recordsBecome(pool, count);
    const [pod] = await c.readyPods('web', 1);
    const name = pod?.metadata?.name ?? '';
    assert.deepEqual(await c.addressesOn(name, 'net1'), [...(await c.records(b2 ?? '')).keys()]);
  });

  caseOf('A00011', 'cleangateway=false keeps the pool’s default route, true leaves it out', bed, async (c) => {
    const net = c.subnet();
    const pool = await c.poolOf('p', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.19`], gateway: `${net}.1` });
    const use = (cleangateway: boolean) => perInterface({ interface: 'eth0', ipv4: [pool], cleangateway });
    await Promise.all([c.pod('kept', { annotations: use(false) }), c.pod('clean', { annotations: use(true) })]);
    assert.match(await c.output('kept', 'ip', 'route'), new RegExp(`^default via ${net}.1 dev eth0`, 'm'));
    assert.doesNotMatch(await c.output('clean', 'ip', 'route'), /^default/m);
  });

  caseOf('A00012', 'default-route-nic moves the default route to the interface it names', bed, async (c) => {
    const net = c.subnet();
    const one = await c.pool('one', 5, { gateway: undefined });
    const two = await c.poolOf('two', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.19`], gateway: `${net}.1` });
    const second = await c.attachment('second');
    const pools = [
      { interface: 'eth0', ipv4: [one] },
      { interface: 'net1', ipv4: [two] },
    ];
    const annotations = {
      ...fromPools([one]),
      [ippools]: JSON.stringify(pools),
      [networks]: second,
      'ipam.spidernet.io/default-route-nic': 'net1',
    };
    await c.pod('web', { annotations });
    assert.match(await c.output('web', 'ip', 'route', 'get', '8.8.8.8'), new RegExp(`via ${net}\\.1 dev net1`));
  });

  caseOf('A00013', 'ippools that leaves an interface out is refused', bed, async (c) => {
    const pool = await c.pool('p');
    const annotations = { ...perInterface({ interface: 'net1', ipv4: [pool] }), [networks]: await secondNetwork(c) };
    await c.refused('web', /interface eth0 must be specified/, { annotations });
  });

  caseOf('A00014', 'ippools that names an interface twice is refused', bed, async (c) => {
    const pool = await c.pool('p');
    const twice = { interface: 'eth0', ipv4: [pool] };
    await c.refused('web', /duplicate interface eth0/, { annotations: perInterface(twice, twice) });
  });

  caseOf('A00016', 'an empty pool of one interface does not drain the other’s', bed, async (c) => {
    const [full, empty] = [await c.pool('full', 5), await c.pool('empty', 1)];
    const second = await secondNetwork(c);
    await c.pod('first', { annotations: fromPools([empty]) });
    const pools = perInterface({ interface: 'eth0', ipv4: [full] }, { interface: 'net1', ipv4: [empty] });
    await c.createPod('web', { annotations: { ...pools, [networks]: second } });
    await c.failsWith('web', /all IP addresses used out/);
    let largest = 0;
    const endMs = Date.now() + 6_000;
    await waitFor('three attempts and more', async () => {
      largest = Math.max(largest, (await c.records(full)).size);
      return Date.now() > endMs;
    });
    assert.ok(largest <= 1, `${largest} addresses were taken by one pod`);
    await c.remove('first');
    await c.ready('web');
    assert.equal((await c.records(full)).size, 1);
  });
}

function statefulCases(bed: () => Bed): void {
  caseOf('A00009', 'a changed pool annotation moves the pods of a Deployment and of a StatefulSet', bed, async (c) => {
    for (const gvr of [deployments, statefulSets]) {
      const name = gvr.kind.toLowerCase();
      const [before, after] = [await c.pool(`${name}-1`), await c.pool(`${name}-2`)];
      await workload(c, gvr, name, { annotations: fromPools([before]) });
      await c.readyPods(name, 2);
      const body = { spec: { template: podTemplate(name, { annotations: fromPools([after]) }) } };
      await c.kube.patch(gvr, { namespace: c.namespace, name }, { type: 'merge', body });
      await c.recordsBecome(after, 2);
      await c.recordsBecome(before, 0);
      for (const pod of await c.readyPods(name, 2)) assert.ok((await c.records(after)).has(ipsOf(pod)[0] ?? ''));
    }
  });

  for (const [id, what, named] of [
    ['A00017', 'a StatefulSet with two interfaces: made, restarted, moved to other pools', true],
    ['A00018', 'the same with interfaces that ippools does not name', false],
  ] as const) {
    caseOf(id, what, bed, async (c) => {
      const [a, b, a2, b2] = await Promise.all(['a', 'b', 'a2', 'b2'].map((name) => c.pool(name, 3)));
      const second = await secondNetwork(c);
      const element = (name: string, pool = ''): object => ({ ...(named && { interface: name }), ipv4: [pool] });
      const use = (one = '', two = ''): Record<string, string> => ({
        ...perInterface(element('eth0', one), element('net1', two)),
        [networks]: second,
      });
      await workload(c, statefulSets, 'db', { annotations: use(a, b) });
      await c.readyPods('db', 2);
      const held = async (pool = ''): Promise<[string, string][]> => [...(await c.records(pool))].sort();
      const before = [await held(a), await held(b)];
      await c.kube.delete(podsResource, { namespace: c.namespace, name: 'db-0' }, { gracePeriodSeconds: 0 });
      await c.readyPods('db', 2);
      assert.deepEqual([await held(a), await held(b)], before, 'the restarted pod has its addresses again');
      assert.deepEqual(
        await c.addressesOn('db-0', 'net1'),
        before[1]?.filter(([, pod]) => pod.endsWith('/db-0')).map(([address]) => address),
      );
      const body = { spec: { template: podTemplate('db', { annotations: use(a2, b2) }) } };
      await c.kube.patch(statefulSets, { namespace: c.namespace, name: 'db' }, { type: 'merge', body });
      for (const [pool = '', count] of [
        [a2, 2],
        [b2, 2],
        [a, 0],
        [b, 0],
      ] as const)
        await c.recordsBecome(pool, count);
      await c.readyPods('db', 2);
    });
  }
}
