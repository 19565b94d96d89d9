/** Endpoint ids and the programs that are loaded before they are needed; what happens when maps are full. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { hasErrorCode } from '../core/error.ts';
import { BpfMap } from '../kernel/index.ts';
import { conntrackEntry, conntrackFlag, conntrackKey, encodeAddress } from './abi.ts';
import { Datapath, type EndpointPolicy, type PolicyEntry } from './datapath.ts';
import type { MapUsage } from './map-usage.ts';
import type { MapLimits } from './maps.ts';
import { address, mustPrefix, TestBpffs, TestPair, TestStack, whyNoKernelTests } from './test-bed.ts';

const open: EndpointPolicy = { isolated: { ingress: false, egress: false }, entries: [] };
const reason = whyNoKernelTests();

describe('endpoint ids and prepared programs', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let bpffs: TestBpffs;

  beforeEach(() => {
    stack = new TestStack();
    bpffs = stack.use(new TestBpffs());
  });
  afterEach(() => stack[Symbol.dispose]());

  const opened = (limits: MapLimits = {}): Datapath =>
    stack.use(Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 1024, policy: 8, ipcache: 5, ...limits } }));
  const prepareAll = (datapath: Datapath, count: number): number => {
    let calls = 0;
    while (datapath.prepare(count)) calls++;
    return calls;
  };

  it('loads one program for each call, until enough are ready', () => {
    const datapath = opened();
    assert.equal(prepareAll(datapath, 3), 6);
    assert.equal(prepareAll(datapath, 3), 0);
    assert.deepEqual(datapath.endpoints(), [], 'they are no endpoints yet');
    assert.deepEqual(datapath.orphans(new Set()), [], 'nor anything to clean up');
    assert.ok(!readdirSync(bpffs.path).includes('endpoint'), 'nothing of them is pinned');
  });

  it('a prepared endpoint is like any other, and its ADD does not wait for the verifier', () => {
    const datapath = opened();
    prepareAll(datapath, 1);
    const endpointId = datapath.nextEndpointId(() => false);
    const pair = stack.use(new TestPair('veth'));
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
    assert.equal(prepareAll(datapath, 1), 2, 'what was prepared is used up');
    assert.ok(!pair.ping('peer', address.pod4), 'drops until programmed');
    datapath.setPolicy(endpointId, open);
    assert.ok(pair.ping('peer', address.pod4));
    datapath.setPolicy(endpointId, { isolated: { ingress: true, egress: true }, entries: [] });
    assert.ok(!pair.ping('peer', address.pod4));
    const [event] = datapath.readEvents().filter(({ reason, protocol }) => reason === 'policy' && protocol === 1);
    assert.equal(event?.endpointId, endpointId, 'the programs have the right id');
  });

  it('an id is not given twice, and comes back late', () => {
    const datapath = opened({ endpoints: 5 });
    const take = (known: number[] = []): number => {
      const id = datapath.nextEndpointId((candidate) => known.includes(candidate));
      datapath.register(id);
      return id;
    };
    assert.equal(take([1]), 2);
    prepareAll(datapath, 1);
    assert.equal(take([1]), 3, 'the prepared one');
    datapath.detachEndpoint(2);
    assert.equal(take([1]), 4);
    assert.equal(take([1]), 2);
    assert.throws(
      () => take([1]),
      (error) => hasErrorCode(error, 'limit_exceeded'),
    );
    assert.deepEqual(
      datapath.mapUsage().find(({ map }) => map === 'endpoints'),
      { map: 'endpoints', entries: 3, maxEntries: 4, full: false, remedy: 'schedule fewer pods on the node' },
    );
    assert.equal(take(), 1);
    assert.equal(datapath.mapUsage().find(({ map }) => map === 'endpoints')?.full, true);
    assert.equal(datapath.prepare(1), false, 'there is nothing to prepare for');
  });

  it('an id that somebody else took meanwhile is not given, and its programs are given up', () => {
    const datapath = opened();
    prepareAll(datapath, 1);
    const prepared = datapath.nextEndpointId(() => false);
    const other = datapath.nextEndpointId((id) => id === prepared);
    assert.notEqual(other, prepared);
    assert.equal(prepareAll(datapath, 1), 2);
  });

  it('ids beyond the limit are refused', () => {
    const datapath = opened({ endpoints: 5 });
    for (const id of [0, 5, 70_000]) {
      assert.throws(
        () => datapath.register(id),
        (error) => hasErrorCode(error, 'limit_exceeded'),
      );
    }
  });

  it('an ipcache that is full changes nothing', () => {
    const datapath = opened();
    const entry = (host: number, identity: number) => [mustPrefix(`10.0.0.${host}/32`), identity] as const;
    datapath.updateIpcache({ upsert: [entry(1, 300), entry(2, 300), entry(3, 300)], remove: [] });
    const before = datapath.ipcache();
    assert.throws(
      () => datapath.updateIpcache({ upsert: [entry(1, 999), entry(4, 300), entry(5, 300)], remove: [] }),
      (error) => hasErrorCode(error, 'limit_exceeded'),
    );
    assert.deepEqual(datapath.ipcache(), before);
    datapath.updateIpcache({ upsert: [entry(1, 301), entry(4, 300)], remove: [mustPrefix('10.0.0.2/32')] });
    assert.deepEqual(
      datapath.mapUsage().find(({ map }) => map === 'ipcache'),
      {
        map: 'ipcache',
        entries: 3,
        maxEntries: 4,
        full: false,
        remedy: 'use fewer separate ipBlock prefixes; or raise --map-size ipcache=N and restart the agent',
      },
    );
    datapath.updateIpcache({ upsert: [entry(6, 300)], remove: [] });
    assert.equal(datapath.mapUsage().find(({ map }) => map === 'ipcache')?.full, true);
    const next = opened();
    assert.equal(next.mapUsage().find(({ map }) => map === 'ipcache')?.entries, 4, 'counted anew by the next process');
  });

  it('counts the connections that are alive, and tells that they have no room before the first is forgotten', () => {
    const datapath = opened({ conntrack: 16_384 });
    using conntrack = BpfMap.openPinned(join(bpffs.path, 'conntrack'));
    assert.ok(conntrack);
    const remember = (first: number, count: number, flags: number): void => {
      const entry = { lastSeenNs: process.hrtime.bigint(), revision: 1, ruleId: 1, identity: 300, direction: 0, flags };
      for (let port = first; port < first + count; port++) conntrack.update(tcpKey(port), conntrackEntry.encode(entry));
    };
    const usage = (): MapUsage | undefined => {
      Array.from(datapath.countConnections());
      return datapath.mapUsage().find(({ map }) => map === 'conntrack');
    };
    assert.equal(
      datapath.mapUsage().find(({ map }) => map === 'conntrack'),
      undefined,
      'not counted yet',
    );
    assert.equal(usage()?.entries, 0);
    remember(1, 600, conntrackFlag.replied);
    remember(20_000, 200, conntrackFlag.rst);
    const some = usage();
    assert.deepEqual([some?.entries, some?.maxEntries, some?.full], [600, 16_384, false]);
    remember(20_000, 14_400, conntrackFlag.replied);
    assert.equal(usage()?.full, true);
    assert.match(usage()?.remedy ?? '', /^raise --map-size conntrack=N/);
    const kept = Array.from({ length: 600 }, (_, i) => conntrack.lookup(tcpKey(i + 1)) !== undefined);
    assert.ok(kept.every(Boolean), 'the oldest are there still');
  });

  it('a policy map that is full keeps the old policy', () => {
    const datapath = opened();
    const entries = (count: number): PolicyEntry[] =>
      Array.from({ length: count }, (_, i) => ({
        direction: 'ingress',
        identity: 300 + i,
        protocol: 0,
        port: 0,
        portPrefixLen: 0,
        ruleId: 1,
        action: 'allow',
      }));
    const policy = (count: number): EndpointPolicy => ({
      isolated: { ingress: true, egress: false },
      entries: entries(count),
    });
    datapath.register(7);
    datapath.setPolicy(7, policy(2));
    const usage = () => datapath.mapUsage().find(({ map }) => map === 'policy')?.entries;
    assert.equal(usage(), 4, 'an entry each, and one each for fragments');
    const before = datapath.endpoints();
    assert.throws(
      () => datapath.setPolicy(7, policy(3)),
      (error) => hasErrorCode(error, 'limit_exceeded'),
    );
    assert.deepEqual(datapath.endpoints(), before);
    assert.equal(datapath.policyEntries(7).length, 2);
    assert.equal(usage(), 4, 'nothing half-written stays');
    datapath.setPolicy(7, policy(1));
    assert.equal(usage(), 6, 'the policy before stays until the next change');
  });
});

function tcpKey(localPort: number): Uint8Array {
  return conntrackKey.encode({
    endpointId: 1,
    localAddress: encodeAddress(mustPrefix('10.0.0.1/32').address),
    remoteAddress: encodeAddress(mustPrefix('10.0.0.2/32').address),
    localPort,
    remotePort: 80,
    family: 4,
    protocol: 6,
  });
}
