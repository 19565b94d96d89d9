import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { PoolSpec, SpiderIPPool } from '../api/spiderippool.ts';
import { formatIp, parseIp } from '../core/ip.ts';
import { decodeAllocatedIps, encodeAllocatedIps, type AllocationRecord } from './allocated-ips.ts';
import { totalAddressCount } from './pool-addresses.ts';
import { isExhausted, maxRecordsPerPool, PoolBook } from './pool-book.ts';
import { filterPools, orderPools, type PoolUser } from './pool-filter.ts';
import { defaultPoolNames, expandNames, selectPools } from './pool-selection.ts';
import { attachmentOf, isPodAlive } from './pod.ts';
import { compileWildcard } from './wildcard.ts';

const seed = Date.now() % 2 ** 31;
const runs = { seed, numRuns: 300 };
console.log(`fast-check seed ${seed}`);

function pool(spec: Partial<PoolSpec>, name = 'p', allocatedIPs?: string): SpiderIPPool {
  const base = { subnet: '10.0.0.0/24', ...spec };
  return { metadata: { name }, spec: base, ...(allocatedIPs === undefined ? {} : { status: { allocatedIPs } }) };
}

function text(result: ReturnType<PoolBook['allocate']>): string {
  return isExhausted(result) ? result.exhausted : formatIp(result.address);
}

describe('status.allocatedIPs', () => {
  it('is the document Spiderpool writes: string order, no spaces, our field only beside eth0', () => {
    const records = new Map<string, AllocationRecord>([
      ['172.51.0.2', { pod: 'default/b', podUid: 'u2', interface: 'net1' }],
      ['172.51.0.100', { pod: 'default/a', podUid: 'u1', interface: 'eth0' }],
    ]);
    assert.equal(
      encodeAllocatedIps(records),
      '{"172.51.0.100":{"pod":"default/a","podUid":"u1"},"172.51.0.2":{"pod":"default/b","podUid":"u2","interface":"net1"}}',
    );
    assert.equal(encodeAllocatedIps(new Map()), undefined);
  });

  it('refuses to read over what it does not understand', () => {
    assert.throws(() => decodeAllocatedIps('{"10.0.0.1":1}', 'p'), /read status\.allocatedIPs of SpiderIPPool p/);
  });

  it('comes back as it was', () => {
    const record = fc.record(
      { pod: fc.string(), podUid: fc.string(), interface: fc.constantFrom('eth0', 'net1') },
      { noNullPrototype: true },
    );
    const key = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value) => formatIp({ family: 4, value }));
    fc.assert(
      fc.property(fc.dictionary(key, record), (records) => {
        const map = new Map(Object.entries(records));
        assert.deepEqual(
          new Map([...decodeAllocatedIps(encodeAllocatedIps(map), 'p')].sort()),
          new Map([...map].sort()),
        );
      }),
      runs,
    );
  });
});

describe('the book against a set', () => {
  const host = fc.integer({ min: 0, max: 30 });
  const range = fc.tuple(host, host).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
  const step = fc.record({ pod: fc.integer({ min: 0, max: 12 }), net: fc.boolean(), release: fc.boolean() });
  const toText = ([a, b]: readonly [number, number]): string => `10.0.0.${a}-10.0.0.${b}`;

  it('gives what a list of addresses and a map would', () => {
    fc.assert(
      fc.property(
        fc.array(range, { maxLength: 4 }),
        fc.array(range, { maxLength: 2 }),
        fc.array(step),
        (ips, excluded, steps) => {
          const book = new PoolBook(pool({ ips: ips.map(toText), excludeIPs: excluded.map(toText) }));
          const isExcluded = (n: number): boolean => excluded.some(([a, b]) => a <= n && n <= b);
          const listed = ips
            .flatMap(([a, b]) => Array.from({ length: b - a + 1 }, (_, i) => a + i))
            .filter((n) => !isExcluded(n));
          const oracle = new Map<string, string>();
          for (const { pod, net, release } of steps) {
            const key = { podUid: `u${pod}`, pod: `default/p${pod}`, interface: net ? 'net1' : 'eth0' };
            const id = `${key.podUid}/${key.interface}`;
            if (release) {
              book.release((record) => record.podUid === key.podUid && record.interface === key.interface);
              oracle.delete(id);
              continue;
            }
            const used = new Set(oracle.values());
            const free = listed.map((n) => `10.0.0.${n}`).find((address) => !used.has(address));
            const expected = oracle.get(id) ?? free ?? 'addresses';
            assert.equal(text(book.allocate(key)), expected);
            if (expected !== 'addresses') oracle.set(id, expected);
          }
          assert.equal(book.status().allocatedIPCount, oracle.size);
          assert.equal(book.status().totalIPCount, new Set(listed).size);
          assert.deepEqual([...book.records.keys()].sort(), [...oracle.values()].sort());
        },
      ),
      runs,
    );
  });

  it('works in an IPv6 pool of 2^64 addresses, where a list would not fit', () => {
    const spec = { subnet: 'fd00::/64', ips: ['fd00::-fd00::ffff:ffff:ffff:ffff'], excludeIPs: ['fd00::-fd00::f'] };
    const book = new PoolBook(pool(spec));
    assert.equal(text(book.allocate({ podUid: 'u', pod: 'd/p', interface: 'eth0' })), 'fd00::10');
    const count = totalAddressCount({ ...spec });
    assert.ok(count > 9.2e18);
    // What is sent: within int64, or a real API server refuses the status.
    assert.ok(BigInt(JSON.stringify(count)) < 2n ** 63n);
  });

  it('lets a successor of the same name take over when nothing is free', () => {
    const book = new PoolBook(pool({ ips: ['10.0.0.1'] }, 'p', '{"10.0.0.1":{"pod":"d/sts-0","podUid":"old"}}'));
    assert.equal(text(book.allocate({ podUid: 'x', pod: 'd/other', interface: 'eth0' })), 'addresses');
    assert.equal(text(book.allocate({ podUid: 'new', pod: 'd/sts-0', interface: 'eth0' })), '10.0.0.1');
    assert.equal(book.status().allocatedIPs, '{"10.0.0.1":{"pod":"d/sts-0","podUid":"new"}}');
  });

  it('steps over reserved addresses', () => {
    const book = new PoolBook(pool({ ips: ['10.0.0.1-10.0.0.3'] }));
    const reserved = [{ first: parseIp('10.0.0.0') ?? assert.fail(), last: parseIp('10.0.0.2') ?? assert.fail() }];
    assert.equal(text(book.allocate({ podUid: 'u', pod: 'd/p', interface: 'eth0' }, reserved)), '10.0.0.3');
    assert.equal(text(book.allocate({ podUid: 'v', pod: 'd/q', interface: 'eth0' }, reserved)), 'addresses');
  });

  it(`stops at ${maxRecordsPerPool} records`, () => {
    const book = new PoolBook(pool({ subnet: '10.0.0.0/16', ips: ['10.0.0.0-10.0.255.255'] }));
    const allocate = (n: number): string => text(book.allocate({ podUid: `u${n}`, pod: `d/p${n}`, interface: 'eth0' }));
    for (let n = 0; n < maxRecordsPerPool; n++) assert.match(allocate(n), /^10\./);
    assert.equal(allocate(maxRecordsPerPool), 'records');
  });
});

describe('selection', () => {
  const conf = { confIpv4: ['conf4'], confIpv6: undefined, interface: 'eth0', interfaceIndex: () => 0 };
  const none = { podAnnotations: {}, namespaceAnnotations: {}, ...conf };
  const namespaceAnnotations = { 'ipam.spidernet.io/default-ipv4-ippool': '["ns4"]' };
  const one = { 'ipam.spidernet.io/ippool': '{"ipv4":["pod4"]}' };
  const many = {
    'ipam.spidernet.io/ippools':
      '[{"interface":"eth0","ipv4":["list4"],"cleangateway":true},{"interface":"net1","ipv6":["list6"]}]',
  };

  for (const [what, input, expected] of [
    ['nothing', { ...none, confIpv4: undefined }, undefined],
    ['the CNI configuration', none, 'conf4'],
    ['the namespace before it', { ...none, namespaceAnnotations }, 'ns4'],
    ['ippool before that', { ...none, namespaceAnnotations, podAnnotations: one }, 'pod4'],
    ['ippools before all', { ...none, namespaceAnnotations, podAnnotations: { ...one, ...many } }, 'list4'],
  ] as const) {
    it(`takes ${what}`, () => assert.equal(selectPools(input)?.ipv4?.[0], expected));
  }

  it('finds the element of the interface, by name or by order', () => {
    assert.deepEqual(selectPools({ ...none, podAnnotations: many, interface: 'net1' })?.ipv6, ['list6']);
    const ordered = { 'ipam.spidernet.io/ippools': '[{"ipv4":["a"]},{"ipv4":["b"]}]' };
    assert.deepEqual(selectPools({ ...none, podAnnotations: ordered, interface: 'x', interfaceIndex: () => 1 })?.ipv4, [
      'b',
    ]);
  });

  for (const [value, message] of [
    ['[]', /value requires at least one item/],
    ['[{"interface":"eth0"},{}]', /NIC should be either all specified or all unspecified/],
    ['[{"interface":"net1"},{"interface":"net1"}]', /duplicate interface net1/],
    ['[{"interface":"net1"}]', /interface eth0 must be specified/],
    ['{"ipv4":["a"]}', /wrong input, invalid format of Pod annotation 'ipam\.spidernet\.io\/ippools'/],
  ] as const) {
    it(`refuses ippools ${value}`, () => {
      const podAnnotations = { 'ipam.spidernet.io/ippools': value };
      assert.throws(() => selectPools({ ...none, podAnnotations }), message);
    });
  }

  it('expands wildcards in name order, of the right family, literals in place', () => {
    const pools = ['b-2', 'a', 'b-1'].map((name) => pool({ ipVersion: 4 }, name));
    pools.push(pool({ ipVersion: 6, subnet: 'fd00::/64' }, 'b-6'));
    assert.deepEqual(expandNames(['z', 'b-*', 'a'], 4, pools).names, ['z', 'b-1', 'b-2', 'a']);
    assert.deepEqual(expandNames(['a', 'a'], 4, pools).duplicates, ['a']);
    assert.deepEqual(expandNames(['b-['], 4, pools).malformed, ['b-[']);
    assert.deepEqual(
      defaultPoolNames(
        pools.map((p) => ({ ...p, spec: { ...p.spec, default: true } })),
        4,
      ),
      ['a', 'b-1', 'b-2'],
    );
  });

  it('reads patterns as path.Match does', () => {
    for (const [pattern, name, expected] of [
      ['rail?-[0-9]', 'rail1-2', true],
      ['a*', 'a/b', false],
      ['a.b', 'axb', false],
      ['[^a]', 'b', true],
      ['[^a]', 'a', false],
    ] as const) {
      assert.equal(compileWildcard(pattern)?.(name), expected, `${pattern} ${name}`);
    }
  });
});

describe('filter and order', () => {
  const user: PoolUser = {
    family: 4,
    interface: 'eth0',
    podLabels: { app: 'test' },
    owner: { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'default', name: 'test', uid: 'u' },
    namespace: 'default',
    namespaceLabels: { env: 'prod' },
    node: 'node1',
    nodeLabels: { zone: 'a' },
    attachment: () => 'kube-system/ipvlan-conf',
    attachmentNamespace: 'kube-system',
  };

  for (const [what, spec, isFit] of [
    ['another node', { nodeName: ['node2'] }, false],
    ['the node', { nodeName: ['node1'], nodeAffinity: { matchLabels: { zone: 'b' } } }, true],
    ['another zone', { nodeAffinity: { matchLabels: { zone: 'b' } } }, false],
    ['another namespace', { namespaceName: ['x'] }, false],
    ['a namespace label', { namespaceAffinity: { matchLabels: { env: 'prod' } } }, true],
    ['other pods', { podAffinity: { matchLabels: { app: 'x' } } }, false],
    ['the attachment', { multusName: ['ipvlan-conf'] }, true],
    ['another attachment', { multusName: ['default/ipvlan-conf'] }, false],
    ['nobody: disabled', { disable: true }, false],
  ] as const) {
    it(`pool for ${what}`, () => {
      const { pools, reasons } = filterPools([pool(structuredClone(spec) as Partial<PoolSpec>)], user);
      assert.equal(pools.length, isFit ? 1 : 0);
      assert.equal(reasons.length, isFit ? 0 : 1);
    });
  }

  it('asks for the attachment only when a pool names one', () => {
    filterPools([pool({})], { ...user, attachment: () => assert.fail('asked') });
  });

  it('with matchMasterSubnet, keeps the pools of the subnets that the physical function is in', () => {
    const addresses = ['10.1.0.5', 'fd00:1::5'].flatMap((text) => parseIp(text) ?? []);
    const matching: PoolUser = { ...user, physicalFunction: { name: 'ens1f0', addresses } };
    const pools = [
      pool({ subnet: '10.1.0.0/16' }, 'rail1'),
      pool({ subnet: '10.2.0.0/16' }, 'rail2'),
      pool({ subnet: '10.2.0.0/16', multusName: ['ipvlan-conf'] }, 'named'),
    ];
    const { pools: kept, reasons } = filterPools(pools, matching);
    assert.deepEqual(kept, [pools[0]]);
    const reason =
      'matchMasterSubnet: the subnet 10.2.0.0/16 of IPPool rail2 contains no address of ens1f0 (10.1.0.5), the physical function of eth0';
    assert.deepEqual(reasons, [reason, reason.replace('rail2', 'named')]);
    const six = pool({ ipVersion: 6, subnet: 'fd00:2::/64' }, 'six');
    assert.match(filterPools([six], { ...matching, family: 6 }).reasons.join(), /ens1f0 \(fd00:1::5\)/);
    const bare = { name: 'ens1f0', addresses: [] };
    assert.match(filterPools(pools, { ...user, physicalFunction: bare }).reasons.join(), /ens1f0 \(it has none\)/);
  });

  it('tries the most specific first and keeps the order of the rest', () => {
    const pools = [
      pool({}, 'plain1'),
      pool({ multusName: ['m'] }, 'multus'),
      pool({}, 'plain2'),
      pool({ nodeName: ['node1'] }, 'node'),
      pool({ podAffinity: { matchLabels: { a: 'b' } } }, 'pod'),
    ];
    assert.deepEqual(
      orderPools(pools).map(({ metadata }) => metadata.name),
      ['pod', 'node', 'multus', 'plain1', 'plain2'],
    );
  });
});

describe('pods', () => {
  for (const [what, pod, isAlive] of [
    ['running', { status: { phase: 'Running' } }, true],
    ['going', { metadata: { deletionTimestamp: 'x' }, status: { phase: 'Running' } }, false],
    ['done', { spec: { restartPolicy: 'OnFailure' }, status: { phase: 'Succeeded' } }, false],
    ['failed, to be restarted', { spec: { restartPolicy: 'OnFailure' }, status: { phase: 'Failed' } }, true],
    ['failed for good', { spec: { restartPolicy: 'Never' }, status: { phase: 'Failed' } }, false],
    ['evicted', { status: { phase: 'Failed', reason: 'Evicted' } }, false],
  ] as const) {
    it(what, () => assert.equal(isPodAlive(pod), isAlive));
  }

  it('names the attachment of an interface', () => {
    const defaults = { namespace: 'kube-system', clusterNetwork: 'kube-system/default' };
    const annotations = {
      'v1.multus-cni.io/default-network': 'ipvlan-conf',
      'k8s.v1.cni.cncf.io/networks': 'a, other/b@x1',
    };
    const pod = { metadata: { namespace: 'demo', annotations } };
    assert.equal(attachmentOf(pod, 'eth0', defaults), 'kube-system/ipvlan-conf');
    assert.equal(attachmentOf(pod, 'net1', defaults), 'demo/a');
    assert.equal(attachmentOf(pod, 'x1', defaults), 'other/b');
    assert.equal(attachmentOf({}, 'eth0', defaults), 'kube-system/default');
  });
});
