/** The agent's API by injected requests, over a kernel in memory. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type {
  ApiError,
  DropsAnswer,
  DropsLine,
  EndpointPolicyInfo,
  EndpointSummary,
  ExplainAnswer,
  NodeAddresses,
} from '../../api/agent-api.ts';
import type { NetworkPolicy, Pod } from '../../api/kubernetes.ts';
import { parseIp } from '../../core/ip.ts';
import { ManualClock } from '../../core/manual-clock.ts';
import type { LimitState } from '../../datapath/shaper.ts';
import type { DatapathEvent } from '../../datapath/events.ts';
import type { EndpointPolicy } from '../../policy/compile.ts';
import { compileEndpointPolicy, endpointOfPod } from '../../policy/compile.ts';
import { IdentityAllocator, type IdentityId } from '../../policy/identity.ts';
import { computeIpcache } from '../../policy/ipcache.ts';
import { PolicyIndex } from '../../policy/policy-index.ts';
import { RuleIds } from '../../policy/rule-id.ts';
import { IdentityView } from '../../policy/select.ts';
import { agentLimits } from '../limits.ts';
import type { NodeNamespace } from '../pod-netns.ts';
import { DropLog } from './drop-log.ts';
import { EventNamer } from './event-view.ts';
import { FollowStream } from './follow-stream.ts';
import { Parties } from './parties.ts';
import { RuleNames } from './rule-names.ts';
import { buildAgentApi } from './server.ts';
import { listenAgentApi } from './socket.ts';
import type { KernelView } from './sources.ts';

const pods: Pod[] = ['web', 'client'].map((name, index) => ({
  metadata: { namespace: 'demo', name, uid: `${name}-uid`, labels: { app: name } },
  spec: { nodeName: 'node1', containers: [{ name: 'c' }] },
  status: { phase: 'Running', podIPs: [{ ip: `10.0.0.${index + 1}` }] },
}));
const policy: NetworkPolicy = {
  metadata: { namespace: 'demo', name: 'p', uid: 'p-uid' },
  spec: {
    podSelector: { matchLabels: { app: 'web' } },
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 80 }] }],
  },
};
const record = {
  ...{
    formatVersion: 1 as const,
    endpointId: 7,
    containerId: 'c',
    ifName: 'eth0',
    networkName: 'n',
    netns: '/x',
    netnsInode: '1',
  },
  pod: { namespace: 'demo', name: 'web', uid: 'web-uid' },
  ...{ ips: ['10.0.0.1'], interfaces: ['eth0'], runtimeBandwidth: {}, createdAt: '2026-01-01T00:00:00Z' },
  limits: {
    egress: { bps: 1_000_000, source: 'pod-annotation' as const },
    ingress: { bps: 2_000_000, source: 'namespace-annotation' as const },
  },
};

/** An agent with one endpoint, whose kernel holds what the compiler says. */
function agent() {
  const clock = new ManualClock();
  const policyIndex = new PolicyIndex([policy]);
  const ids = new RuleIds();
  const allocator = new IdentityAllocator({ nowMs: () => 0 });
  const ipcache = new Map<string, IdentityId>();
  const descriptors = computeIpcache({ pods, nodes: [], namespaces: [], nodeName: 'node1', prefixes: [] });
  for (const [prefix, descriptor] of descriptors) ipcache.set(prefix, allocator.acquire(descriptor) as IdentityId);
  const view = new IdentityView(allocator.entries());
  let held: EndpointPolicy = compileEndpointPolicy(endpointOfPod(pods[0] as Pod), policyIndex, view, ids);
  let raw: DatapathEvent[] = [];
  const state = { synced: true, lost: 0n, allow: false, programmed: true, takingOver: false };
  const kernel: KernelView = {
    endpoints: () => [
      {
        endpointId: 7,
        programmed: state.programmed,
        policyRevision: 3,
        isolated: held.isolated,
        audit: false,
        interfaces: ['eth0'],
      },
    ],
    policyEntries: () => [...held.entries],
    counters: () => [{ endpointId: 7, direction: 'ingress', reason: 'policy', packets: 2n, bytes: 120n }],
    ruleCounters: () => [
      { endpointId: 7, direction: 'ingress', ruleId: held.entries.at(-1)?.ruleId ?? 0, decisions: 4n },
    ],
    mapUsage: () => [],
    readEvents: () => raw.splice(0),
    setEventKinds: ({ allow }) => (state.allow = allow),
    lostEvents: () => state.lost,
    ipcache: () => ipcache,
    connections: () => [],
  };
  const cluster = {
    get synced() {
      return state.synced;
    },
    policyIndex,
    pods: { list: () => pods },
    namespaces: { list: () => [], get: () => undefined },
    nodes: { list: () => [] },
    policies: { list: () => [policy] },
    podOf: ({ name }: { readonly name: string }) => pods.find(({ metadata }) => metadata?.name === name),
  };
  const endpoints = () => [record];
  const parties = new Parties({ pods: () => pods, nodes: () => [], clock });
  const rules = new RuleNames({ ids, policies: () => policyIndex, clock });
  const names = { node: 'node1', book: () => parties.book, ruleOf: (id: number) => rules.nameOf(id), endpoints };
  const namer = new EventNamer({ ...names, monotonicNs: () => 5_000_000_000n, nowMs: () => 1_000_000 });
  const drops = new DropLog(kernel, (event) => namer.describe(event));
  const common = {
    ...{ nodeName: 'node1', enforcement: 'default' as const, audited: () => false },
    problems: () => (state.synced ? [] : ['pods: no list yet']),
    isTakingOver: () => state.takingOver,
  };
  const namespaces = (known: ReadonlySet<string>): Promise<readonly NodeNamespace[]> =>
    Promise.resolve(
      [...known, '99'].map((inode) => ({
        ...{ path: `/run/netns/${inode}`, inode },
        interfaces: [{ name: 'eth0', addresses: ['10.0.0.1'] }],
      })),
    );
  const limit = { rateBps: 1_000_000, mechanism: 'htb' as const, statistics: qdiscStatistics(0n) };
  const kernelLimits: { egress: LimitState | undefined; ingress: LimitState | undefined } = {
    egress: limit,
    ingress: undefined,
  };
  const bandwidth = {
    shortfalls: ['no ifb'],
    read: () => ({ ...kernelLimits }),
    monotonicMs: () => clock.monotonicMs(),
    sleep: (ms: number) => {
      kernelLimits.egress = { ...limit, statistics: qdiscStatistics(BigInt(ms) * 100n) };
      return clock.advance(ms);
    },
  };
  const app = buildAgentApi({ ...common, cluster, kernel, endpoints, namespaces, parties, rules, drops, bandwidth });
  const get = async <T>(url: string, status = 200): Promise<T> => {
    const response = await app.inject({ method: 'GET', url });
    assert.equal(response.statusCode, status, response.body);
    return response.json<T>();
  };
  return {
    app,
    get,
    clock,
    policyIndex,
    ids,
    rules,
    drops,
    state,
    arrive: (...events: DatapathEvent[]) => (raw = events),
    hold: (next: EndpointPolicy) => (held = next),
    held: () => held,
  };
}

function qdiscStatistics(sentBytes: bigint): LimitState['statistics'] {
  return { sentBytes, sentPackets: 3n, drops: 4, overlimits: 0, backlogBytes: 5, backlogPackets: 1 };
}

function event(change: Partial<DatapathEvent> = {}): DatapathEvent {
  return {
    ...{
      timeNs: 4_000_000_000n,
      endpointId: 7,
      ruleId: 0,
      identity: 256,
      length: 60,
      sourcePort: 4000,
      destinationPort: 81,
    },
    ...{ protocol: 6, direction: 'ingress', kind: 'drop', reason: 'policy' },
    ...{ source: parseIp('10.0.0.2'), destination: parseIp('10.0.0.1') },
    ...change,
  };
}

describe('the agent’s API', () => {
  it('shows limits with source, mechanism and statistics, the rate over a sample, and what the kernel lost', async () => {
    const { get } = agent();
    const statistics = { packets: 3, drops: 4, backlogBytes: 5, backlogPackets: 1 };
    const place = { node: 'node1', pod: { namespace: 'demo', name: 'web' }, interface: 'eth0' };
    const egress = { ...place, direction: 'egress', limitBps: 1_000_000, source: 'pod-annotation', mechanism: 'htb' };
    const ingress = { ...place, direction: 'ingress', limitBps: 2_000_000, source: 'namespace-annotation' };
    const answer = { node: 'node1', shortfalls: ['no ifb'], unlimited: 0 };
    assert.deepEqual(await get('/v1/bandwidth'), {
      ...answer,
      limits: [{ ...egress, statistics: { bytes: 0, ...statistics } }, ingress],
    });
    assert.deepEqual(await get('/v1/bandwidth?sample=2000&pod=demo/web'), {
      ...answer,
      limits: [{ ...egress, statistics: { bytes: 200_000, ...statistics }, rateBps: 800_000 }, ingress],
    });
    const [detail] = await get<{ bandwidth: unknown[] }[]>('/v1/endpoints/demo/web');
    assert.equal(detail?.bandwidth.length, 2);
    assert.equal((await get<ApiError>('/v1/bandwidth?sample=60001', 400)).code, 'invalid_argument');
    assert.equal((await get<ApiError>('/v1/bandwidth?pod=demo/nope', 404)).code, 'not_found');
  });

  it('lists endpoints, and shows one with counters by rule name', async () => {
    const { get } = agent();
    const [summary] = await get<Record<string, unknown>[]>('/v1/endpoints');
    assert.deepEqual([summary?.['node'], summary?.['policies'], summary?.['revision']], ['node1', ['p'], 3]);
    const [detail] = await get<{ counters: unknown[]; rules: unknown[] }[]>('/v1/endpoints/demo/web');
    assert.deepEqual(detail?.counters, [{ direction: 'ingress', reason: 'policy', packets: 2, bytes: 120 }]);
    const rule = { kind: 'policy', namespace: 'demo', policy: 'p', direction: 'ingress', index: 0 };
    assert.deepEqual(detail?.rules, [{ direction: 'ingress', rule, decisions: 4 }]);
    const error = await get<ApiError>('/v1/endpoints/demo/nope', 404);
    assert.match(error.message, /pod demo\/nope: it has no endpoint on node node1/);
  });

  it('tells an endpoint that the agent before still enforces from one that is closed', async () => {
    const { get, state } = agent();
    const told = async (): Promise<readonly [boolean | undefined, string | undefined]> => {
      const [found] = await get<EndpointSummary[]>('/v1/endpoints');
      return [found?.programmed, found?.takeover];
    };
    assert.deepEqual(await told(), [true, undefined]);
    state.takingOver = true;
    assert.deepEqual(await told(), [true, undefined]);
    Object.assign(state, { programmed: false, takingOver: false });
    assert.deepEqual(await told(), [false, undefined]);
    Object.assign(state, { takingOver: true, synced: false });
    assert.match((await told())[1] ?? '', /agent before enforce.*: pods: no list yet$/);
    state.synced = true;
    assert.match((await told())[1] ?? '', /its policy, which is being written$/);
  });

  it('tells what is on the interfaces of the node’s pods, and whose they are', async () => {
    const { get } = agent();
    const { node, namespaces } = await get<NodeAddresses>('/v1/addresses');
    assert.equal(node, 'node1');
    assert.deepEqual(
      namespaces.map(({ netns, pod, interfaces }) => [netns, pod?.name, interfaces[0]?.addresses]),
      [
        ['/run/netns/1', 'web', ['10.0.0.1']],
        ['/run/netns/99', undefined, ['10.0.0.1']],
      ],
    );
  });

  it('shows a policy as rules and as kernel entries with the peers’ names', async () => {
    const [info] = await agent().get<EndpointPolicyInfo[]>('/v1/endpoints/demo/web/policy');
    assert.deepEqual(info?.isolatedBy, { ingress: ['p'], egress: [] });
    assert.deepEqual(
      info?.rules.map(({ peers, ports }) => [peers, ports]),
      [['pods with app=client in namespace demo', '80/tcp']],
    );
    const entry = info?.entries.find(({ identity }) => identity >= 256);
    assert.deepEqual([entry?.peer, entry?.ports, entry?.rule.kind], ['demo/client (10.0.0.2)', '80/tcp', 'policy']);
  });

  it('explains, beside what the kernel says, and tells when they differ', async () => {
    const { get, hold, held } = agent();
    const url = '/v1/policy/explain?from=demo/client&to=demo/web&port=80/tcp';
    const [path] = (await get<ExplainAnswer>(url)).paths;
    assert.equal(path?.ingress.kernel?.agrees, true);
    assert.deepEqual(path?.ingress.kernel?.rule, path?.ingress.rule);
    assert.equal(path?.egress.kernel, undefined, 'client has no endpoint here');
    hold({ ...held(), entries: [] });
    const [late] = (await get<ExplainAnswer>(url)).paths;
    assert.deepEqual(
      [late?.verdict, late?.ingress.kernel?.verdict, late?.ingress.kernel?.agrees],
      ['allow', 'deny', false],
    );
  });

  it('refuses bad questions, and all about policy before the cluster is known', async () => {
    const { get, app, state } = agent();
    const explain = '/v1/policy/explain?from=demo/client&to=demo/web';
    for (const query of ['&port=http', '&prot=80', '&port=0/tcp', '&port=99999']) await get(`${explain}${query}`, 400);
    await get('/v1/policy/explain?from=demo/client', 400);
    await get('/v1/drops?reason=nonsense', 400);
    await get('/v1/drops?pod=web', 400);
    await get('/v2/nothing', 404);
    const posted = async (payload: object): Promise<number> =>
      (await app.inject({ method: 'POST', url: '/v1/policy/preview', payload })).statusCode;
    assert.equal(await posted({ apply: [{ metadata: {} }], remove: [] }), 400);
    assert.equal(await posted({ apply: [{ ...policy, big: 'x'.repeat(5 << 20) }], remove: [] }), 413);
    assert.equal(await posted({ apply: [], remove: [{ namespace: 'demo', name: 'p' }] }), 200);
    state.synced = false;
    assert.equal((await get<ApiError>(explain, 503)).code, 'agent_unavailable');
  });

  it('names drops: pods, rule, reason, time; filters; keeps a bounded number', async () => {
    const { get, arrive, drops, state } = agent();
    arrive(
      event(),
      event({ kind: 'allow', reason: 'forwarded' }),
      event({ reason: 'malformed', source: undefined, destination: undefined }),
    );
    state.lost = 5n;
    const answer = await get<DropsAnswer>('/v1/drops');
    assert.equal(answer.lost, 5);
    assert.deepEqual(
      answer.events.map(({ reason }) => reason),
      ['policy', 'malformed'],
    );
    const [first, second] = answer.events;
    assert.deepEqual(first?.source, { kind: 'pod', address: '10.0.0.2', namespace: 'demo', name: 'client' });
    assert.equal(first?.time, new Date(999_000).toISOString(), 'a second before now');
    assert.deepEqual([second?.protocol, second?.source, second?.sourcePort], ['not IP', undefined, undefined]);
    assert.equal((await get<DropsAnswer>('/v1/drops?reason=malformed')).events.length, 1);
    assert.equal((await get<DropsAnswer>('/v1/drops?pod=demo/client')).events.length, 1);
    assert.equal((await get<DropsAnswer>('/v1/drops?pod=demo/other')).events.length, 0);
    arrive(...Array.from({ length: agentLimits.dropsKept * 2 }, () => event()));
    assert.ok(drops.snapshot({ kinds: ['drop'] }, Infinity).length <= agentLimits.dropsKept * 1.25);
  });

  it('streams to followers, tells a slow one what it missed, and asks for new connections only then', async () => {
    const { drops, arrive, state } = agent();
    const stream = new FollowStream((onEvent) => drops.follow({ kinds: ['drop', 'allow'] }, onEvent));
    assert.equal(state.allow, true);
    // Nobody reads: the queue fills, and the rest is counted.
    const missed = 50;
    arrive(...Array.from({ length: agentLimits.dropQueue - 1 + missed }, () => event()));
    drops.poll();
    let text = '';
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await new Promise((resolve) => setImmediate(resolve));
    arrive(event({ destinationPort: 99 }));
    drops.poll();
    await new Promise((resolve) => setImmediate(resolve));
    const lines = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as DropsLine);
    assert.deepEqual(lines[0], {});
    assert.equal(lines.at(-2)?.skipped, missed);
    assert.equal(lines.at(-1)?.event?.destinationPort, 99);
    stream.destroy();
    await new Promise((resolve) => stream.once('close', resolve));
    assert.equal(state.allow, false);
    const follow = (): (() => void) => drops.follow({ kinds: ['drop'] }, () => undefined);
    const stops = Array.from({ length: agentLimits.dropFollowers }, follow);
    assert.throws(follow, /readers follow them already/);
    for (const stop of stops) stop();
    follow()();
  });

  it('listens on a socket of mode 0600, replaces a stale one, yields to a live one', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sluice-api-'));
    const path = join(dir, 'agent.sock');
    const [one, two] = [agent().app, agent().app];
    try {
      await listenAgentApi(one, path);
      assert.equal(statSync(path).mode & 0o777, 0o600);
      await assert.rejects(listenAgentApi(two, path), /another agent answers on it/);
    } finally {
      await one.close();
      await two.close();
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

describe('rule names', () => {
  it('outlive their policy for a while, and say that it is gone', async () => {
    const { policyIndex, rules, ids, clock } = agent();
    const id = ids.entries()[0]?.[0] ?? 0;
    assert.deepEqual(rules.nameOf(id), {
      kind: 'policy',
      namespace: 'demo',
      policy: 'p',
      direction: 'ingress',
      index: 0,
    });
    policyIndex.delete('demo', 'p');
    assert.equal((rules.nameOf(id) as { gone?: true }).gone, true);
    rules.prune();
    assert.equal(rules.nameOf(id).kind, 'policy');
    await clock.advance(agentLimits.ruleNameRetentionMs);
    rules.prune();
    assert.deepEqual(rules.nameOf(id), { kind: 'unknown', id });
  });

  it('do not take another policy of the same name for the one that is gone', () => {
    const { policyIndex, rules, ids } = agent();
    const id = ids.entries()[0]?.[0] ?? 0;
    policyIndex.set({ ...policy, metadata: { ...policy.metadata, uid: 'another' } });
    assert.equal((rules.nameOf(id) as { gone?: true }).gone, true);
    assert.deepEqual([rules.nameOf(0).kind, rules.nameOf(1).kind], ['none', 'host']);
  });
});
