/** Events, losses and rule counters, written by the kernel on frames it judges. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { formatIp } from '../core/ip.ts';
import type { Collection } from '../kernel/index.ts';
import type { Direction } from './abi.ts';
import { Datapath, type DatapathEvent, type EndpointPolicy } from './datapath.ts';
import { DatapathMaps } from './maps.ts';
import { ethernet, icmpHeader, ip, tcpFlag, tcpHeader, udpHeader } from './packets.ts';
import { loadEndpointPrograms, programNames, readEndpointObject } from './programs.ts';
import { mustPrefix, TestBpffs, whyNoKernelTests } from './test-bed.ts';

const endpointId = 7;
const pod = { 4: '10.0.0.10', 6: 'fd00::10' } as const;
const client = { 4: '10.0.0.20', 6: 'fd00::20' } as const;
const node = { 4: '10.0.0.1', 6: 'fd00::1' } as const;
const world = { 4: '192.0.2.1', 6: '2001:db8::1' } as const;
const clientIdentity = 300;
const worldIdentity = 2;
const TCP = 6;
const UDP = 17;

const standard: EndpointPolicy = {
  isolated: { ingress: true, egress: false },
  entries: [
    {
      direction: 'ingress',
      identity: clientIdentity,
      protocol: TCP,
      port: 80,
      portPrefixLen: 16,
      ruleId: 4711,
      action: 'allow',
    },
  ],
};
const denyAll: EndpointPolicy = { isolated: { ingress: true, egress: true }, entries: [] };

const syn = (f: 4 | 6, from: string, port: number) => ip(from, pod[f], TCP, tcpHeader(4000, port, tcpFlag.syn));

const reason = whyNoKernelTests();

describe('events of the kernel', { skip: reason ?? false }, () => {
  let bpffs: TestBpffs;
  let maps: DatapathMaps;
  let datapath: Datapath;
  let programs: Collection;

  before(() => {
    bpffs = new TestBpffs();
    const object = readEndpointObject();
    datapath = Datapath.open({ bpffsDir: bpffs.path, limits: { events: 65536 } });
    maps = DatapathMaps.open(bpffs.path, object.spec, {});
    programs = loadEndpointPrograms(object, maps.byName, endpointId);
    datapath.updateIpcache({
      upsert: [
        [mustPrefix('10.0.0.20/32'), clientIdentity],
        [mustPrefix('fd00::20/128'), clientIdentity],
        [mustPrefix('10.0.0.1/32'), 1],
        [mustPrefix('fd00::1/128'), 1],
      ],
      remove: [],
    });
  });

  after(() => {
    programs.close();
    maps.close();
    datapath.close();
    bpffs[Symbol.dispose]();
  });

  beforeEach(() => {
    for (const map of ['conntrack', 'fragments', 'rule_counters', 'event_budgets'] as const) {
      maps.byName[map].deleteBatch([...maps.byName[map].keys()]);
    }
    datapath.detachEndpoint(endpointId);
    datapath.register(endpointId);
    datapath.setEventKinds({ allow: false });
    datapath.setPolicy(endpointId, standard);
    datapath.readEvents(Infinity);
  });

  const run = (hook: Direction, frame: Uint8Array, repeat = 1): DatapathEvent[] => {
    programs.program(programNames[hook]).testRun(frame, { repeat });
    return datapath.readEvents();
  };
  const counters = (): string[] =>
    datapath
      .ruleCounters()
      .map((counter) => `${counter.direction} ${counter.ruleId} ${counter.decisions}`)
      .toSorted();

  for (const f of [4, 6] as const) {
    it(`IPv${f}: a drop tells who, what and why`, () => {
      const before = process.hrtime.bigint();
      const frame = syn(f, client[f], 81);
      const [event, ...more] = run('ingress', frame);
      assert.deepEqual(more, []);
      assert.ok(event !== undefined);
      const { timeNs, source, destination, ...rest } = event;
      assert.ok(timeNs >= before && timeNs <= process.hrtime.bigint());
      assert.deepEqual(
        [source, destination].map((address) => address && formatIp(address)),
        [client[f], pod[f]],
      );
      assert.deepEqual(rest, {
        endpointId,
        ruleId: 0,
        identity: clientIdentity,
        length: frame.length,
        sourcePort: 4000,
        destinationPort: 81,
        protocol: TCP,
        direction: 'ingress',
        kind: 'drop',
        reason: 'policy',
      });
    });

    it(`IPv${f}: new connections are told only when asked for, with the rule that allowed them`, () => {
      assert.deepEqual(run('ingress', syn(f, client[f], 80)), []);
      datapath.setEventKinds({ allow: true });
      const told = (hook: Direction, frame: Uint8Array) =>
        run(hook, frame).map(({ kind, reason, ruleId, identity }) => ({ kind, reason, ruleId, identity }));
      const allow = { kind: 'allow', reason: 'forwarded' };
      assert.deepEqual(told('ingress', syn(f, client[f], 80)), [{ ...allow, ruleId: 4711, identity: clientIdentity }]);
      const established = ip(client[f], pod[f], TCP, tcpHeader(4000, 80, tcpFlag.ack));
      assert.deepEqual(told('ingress', established), [], 'its other packets are not told');
      assert.deepEqual(told('ingress', syn(f, node[f], 22)), [{ ...allow, ruleId: 1, identity: 1 }], 'the host rule');
      const outgoing = ip(pod[f], world[f], UDP, udpHeader(4000, 53));
      assert.deepEqual(
        told('egress', outgoing),
        [{ ...allow, ruleId: 0, identity: worldIdentity }],
        'no rule decides where nothing is isolated',
      );
    });

    it(`IPv${f}: audit tells each decision once`, () => {
      datapath.setPolicy(endpointId, { ...standard, audit: true });
      assert.deepEqual(datapath.endpoints()[0]?.audit, true);
      const told = (frame: Uint8Array) =>
        run('ingress', frame).map((event) => `${event.kind} ${event.reason} ${event.ruleId} ${event.identity}`);
      assert.deepEqual(told(syn(f, client[f], 81)), [`audit audit 0 ${clientIdentity}`]);
      const established = ip(client[f], pod[f], TCP, tcpHeader(4000, 81, tcpFlag.ack));
      assert.deepEqual(told(established), []);
      datapath.setPolicy(endpointId, { ...denyAll, audit: true });
      assert.deepEqual(told(established), [`audit audit 0 ${clientIdentity}`], 'judged again, told again');
    });

    it(`IPv${f}: a connection that is cut is told with each packet`, () => {
      run('ingress', syn(f, client[f], 80));
      datapath.setPolicy(endpointId, denyAll);
      const reply = ip(pod[f], client[f], TCP, tcpHeader(80, 4000, tcpFlag.ack));
      for (let i = 0; i < 2; i++) {
        const told = run('egress', reply).map((event) => `${event.direction} ${event.reason} ${event.identity}`);
        assert.deepEqual(told, [`egress policy ${clientIdentity}`]);
      }
      assert.deepEqual(counters(), ['ingress 0 2', 'ingress 4711 1'], 'in the direction it was opened in');
    });

    it(`IPv${f}: rules count the connections they decided, not packets`, () => {
      run('ingress', syn(f, client[f], 80));
      run('ingress', ip(client[f], pod[f], TCP, tcpHeader(4000, 80, tcpFlag.ack)), 5);
      run('ingress', ip(client[f], pod[f], TCP, tcpHeader(4001, 80, tcpFlag.syn)));
      run('ingress', syn(f, node[f], 22));
      run('ingress', syn(f, world[f], 80), 3);
      run('egress', ip(pod[f], world[f], UDP, udpHeader(4000, 53)));
      assert.deepEqual(counters(), ['ingress 0 3', 'ingress 1 1', 'ingress 4711 2']);
    });
  }

  it('frames that cannot be read are told without addresses', () => {
    const [event] = run('ingress', ethernet(0x88cc, new Uint8Array(46)));
    assert.deepEqual([event?.source, event?.destination, event?.identity], [undefined, undefined, 0]);
    assert.deepEqual([event?.reason, event?.length], ['non_ip', 60]);
  });

  it('an endpoint that floods is held to its budget, and the rest is counted as lost', () => {
    const before = datapath.lostEvents();
    const events = run('ingress', syn(4, world[4], 81), 2000);
    // The window may end on the way.
    assert.ok(events.length >= 256 && events.length <= 512, `${events.length} events`);
    assert.equal(datapath.lostEvents() - before, 2000n - BigInt(events.length));
    datapath.setEventKinds({ allow: true });
    assert.equal(run('ingress', syn(4, client[4], 80)).length, 1, 'another kind has its own budget');
    using other = loadEndpointPrograms(readEndpointObject(), maps.byName, endpointId + 1);
    other.program('to_endpoint').testRun(syn(4, world[4], 81));
    assert.deepEqual(
      datapath.readEvents().map((event) => [event.endpointId, event.reason]),
      [[endpointId + 1, 'no_endpoint']],
      'and so has another endpoint',
    );
  });

  it('a full buffer loses new events, counts them, and works again once it is read', () => {
    const size = 80;
    const fits = Math.floor(65536 / size);
    const ids = Array.from({ length: 5 }, (_, i) => endpointId + 10 + i);
    const before = datapath.lostEvents();
    for (const id of ids) {
      using many = loadEndpointPrograms(readEndpointObject(), maps.byName, id);
      many.program('to_endpoint').testRun(syn(4, world[4], 81), { repeat: 256 });
    }
    const events: DatapathEvent[] = [];
    for (;;) {
      const some = datapath.readEvents(100);
      assert.ok(some.length <= 100);
      if (some.length === 0) break;
      events.push(...some);
    }
    assert.ok(events.length <= fits && events.length >= fits - 2, `${events.length} of ${fits}`);
    assert.equal(datapath.lostEvents() - before, BigInt(ids.length * 256 - events.length));
    assert.equal(run('ingress', icmp()).length, 1, 'the positions came round');
  });

  const icmp = (): Uint8Array => ip(world[4], pod[4], 1, icmpHeader(8, 0, 1));

  it('counters of rules that are gone are removed', () => {
    run('ingress', syn(4, client[4], 80));
    assert.deepEqual(counters(), ['ingress 4711 1']);
    datapath.setPolicy(endpointId, denyAll);
    assert.deepEqual(counters(), ['ingress 4711 1'], 'the policy before is still known');
    datapath.setPolicy(endpointId, { ...denyAll, audit: true });
    assert.deepEqual(counters(), []);
    run('ingress', syn(4, client[4], 80));
    assert.deepEqual(counters(), ['ingress 0 1']);
    datapath.detachEndpoint(endpointId);
    assert.deepEqual([...maps.byName.rule_counters.keys()], []);
  });
});
