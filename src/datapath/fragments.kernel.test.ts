/** Datagrams in several fragments and their events, with real packets between two network namespaces. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Datapath, type EndpointPolicy } from './datapath.ts';
import { address, mustPrefix, TestBpffs, TestPair, TestStack, whyNoKernelTests } from './test-bed.ts';

const endpointId = 42;
const peerIdentity = 300;
const reason = whyNoKernelTests();

/** Ping with a payload of three fragments. */
function pingLarge(pair: TestPair, from: 'pod' | 'peer', to: string): boolean {
  try {
    const args = ['-q', '-n', '-c', '2', '-i', '0.2', '-W', '1', '-s', '4000', to];
    execFileSync('nsenter', [`--net=${pair[from]}`, 'ping', ...args], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe('fragments, with real packets', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let pair: TestPair;
  let datapath: Datapath;

  beforeEach(() => {
    stack = new TestStack();
    const bpffs = stack.use(new TestBpffs());
    pair = stack.use(new TestPair('veth'));
    datapath = stack.use(Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 8192 } }));
    datapath.updateIpcache({
      upsert: [
        [mustPrefix(`${address.peer4}/32`), peerIdentity],
        [mustPrefix(`${address.peer6}/128`), peerIdentity],
      ],
      remove: [],
    });
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
  });
  afterEach(() => stack[Symbol.dispose]());

  const egressOnly: EndpointPolicy = {
    isolated: { ingress: true, egress: true },
    entries: [
      {
        direction: 'egress',
        identity: peerIdentity,
        protocol: 0,
        port: 0,
        portPrefixLen: 0,
        ruleId: 777,
        action: 'allow',
      },
    ],
  };
  const packets = (direction: 'ingress' | 'egress', why: string): number =>
    Number(
      datapath.counters().find((counter) => counter.direction === direction && counter.reason === why)?.packets ?? 0,
    );

  for (const family of [4, 6] as const) {
    it(`IPv${family}: a large ping is judged as a whole, replies included, and each drop is told`, () => {
      datapath.setEventKinds({ allow: true });
      datapath.setPolicy(endpointId, egressOnly);
      assert.ok(pingLarge(pair, 'pod', address[`peer${family}`]), 'allowed: request and reply, three fragments each');
      assert.equal(packets('ingress', 'fragment_unknown'), 0);
      const allowed = datapath.readEvents().filter(({ kind }) => kind === 'allow');
      assert.deepEqual(
        allowed.filter(({ direction }) => direction === 'egress').map(({ ruleId }) => ruleId),
        [777],
        'one connection, one event',
      );
      assert.ok(!pingLarge(pair, 'peer', address[`pod${family}`]), 'denied in the other direction');
      const dropped = datapath.readEvents().filter(({ kind }) => kind === 'drop');
      assert.equal(dropped.filter((event) => event.reason === 'policy').length, 2, 'first fragments');
      assert.equal(dropped.filter((event) => event.reason === 'fragment_unknown').length, 4, 'later fragments');
      assert.ok(dropped.every(({ identity, direction }) => identity === peerIdentity && direction === 'ingress'));
      datapath.setPolicy(endpointId, { ...egressOnly, audit: true });
      assert.ok(pingLarge(pair, 'peer', address[`pod${family}`]), 'audit lets it through');
      const audited = datapath.readEvents().filter(({ kind }) => kind === 'audit');
      assert.equal(audited.length, 1, 'and tells the connection once');
      assert.ok(packets('ingress', 'audit') >= 6 && packets('egress', 'audit') >= 6, 'and counts every packet');
    });
  }
});
