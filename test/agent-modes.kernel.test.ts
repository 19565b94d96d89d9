/** What changes how a real agent judges: enforcement modes, audit mode, an ipcache without room. Asked of packets. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type EnforcementMode, policyAuditAnnotation } from '../src/api/agent-api.ts';
import type { NetworkPolicySpec } from '../src/api/kubernetes.ts';
import { namespaces } from '../src/api/resources.ts';
import { unixAgent } from '../src/cli/agent-client.ts';
import { nodeInfoOf } from '../src/cli/agents.ts';
import { renderStatus } from '../src/cli/render.ts';
import { address, type TestPair, TestStack, whyNoKernelTests } from '../src/datapath/test-bed.ts';
import { AgentBed, namespace, node, type RunningAgent, until } from './agent-bed.ts';
import { pause, Traffic, unheardDatagrams } from './traffic.ts';

const deniedPort = 4712;
const toPeers: NetworkPolicySpec = {
  podSelector: { matchLabels: { app: 'web' } },
  policyTypes: ['Egress'],
  egress: [{ to: [{ podSelector: { matchLabels: { app: 'peer' } } }] }],
};
const nowhere: NetworkPolicySpec = { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Egress'] };

describe('the agent’s modes', { skip: whyNoKernelTests() ?? false }, () => {
  let bed: AgentBed;
  let stack: TestStack;

  beforeEach(async () => {
    stack = new TestStack();
    bed = await AgentBed.create();
  });
  afterEach(async () => {
    stack[Symbol.dispose]();
    await bed.close();
  });

  /** Which of the four ways a ping gets through: out of the pod and into it, in both families. */
  function open(pair: TestPair): string {
    const out = [address.peer4, address.peer6].map((to) => !pair.isCut('pod', to));
    const into = [address.pod4, address.pod6].map((to) => !pair.isCut('peer', to));
    const both = ([v4, v6]: boolean[]): string => (v4 === v6 ? (v4 === true ? 'open' : 'cut') : 'one family only');
    return `out ${both(out)}, in ${both(into)}`;
  }

  async function becomes(pair: TestPair, wanted: string): Promise<void> {
    let seen = '';
    await until(wanted, () => (seen = open(pair)) === wanted).catch(() => assert.equal(seen, wanted));
  }

  it('default isolates whom policies select, always everyone, never nobody; existing pods follow a restart', async () => {
    let agent = await bed.startReady();
    const [selected, free] = [bed.pair(), bed.pair()];
    await bed.createPolicy('no-egress', nowhere);
    await bed.add('web', selected);
    await bed.add('free', free);
    const restart = async (policyEnforcement: EnforcementMode): Promise<void> => {
      await bed.stop(agent, 'SIGTERM');
      agent = await bed.startReady({ policyEnforcement });
      assert.equal(await bed.metric(agent, `sluice_policy_enforcement{mode="${policyEnforcement}"}`), 1);
    };
    assert.equal(open(selected), 'out cut, in open');
    assert.equal(open(free), 'out open, in open');

    await restart('always');
    await becomes(selected, 'out cut, in cut');
    await becomes(free, 'out cut, in cut');
    await bed.createPolicy('let-in', { podSelector: { matchLabels: { app: 'free' } }, ingress: [{}] });
    await becomes(free, 'out cut, in open');
    const late = bed.pair();
    await bed.add('late', late);
    assert.equal(open(late), 'out cut, in cut', 'a new pod is isolated from its first packet on');

    await restart('never');
    for (const pair of [selected, free, late]) await becomes(pair, 'out open, in open');
    await bed.createPolicy('deny-all', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
    await pause(500);
    for (const pair of [selected, free, late]) assert.equal(open(pair), 'out open, in open');

    await restart('default');
    await becomes(selected, 'out cut, in cut');
    await becomes(late, 'out cut, in cut');
    await becomes(free, 'out cut, in open');
  });

  it('audit mode lets through what policy would drop and counts it, also over a crash; its end cuts it; a typo opens nothing', async () => {
    let agent = await bed.startReady();
    const pair = bed.pair();
    await bed.createPolicy('no-egress', nowhere);
    await bed.add('web', pair);
    const arrived = unheardDatagrams(pair.peer);
    for (const to of [address.peer4, address.peer6])
      stack.use(await Traffic.start(pair.pod, 'udp-fire', to, deniedPort));
    const annotate = (value: string | null): Promise<unknown> => {
      const metadata = { annotations: { [policyAuditAnnotation]: value } };
      return bed.kube.patch(namespaces, { name: namespace }, { type: 'merge', body: { metadata } });
    };
    const counted = (): Promise<number> =>
      bed.metric(agent, 'sluice_datapath_packets_total{direction="egress",reason="audit"}');
    /** Silence would not tell: under emulation the sender may pause longer than a test waits. */
    const isAudited = async (): Promise<boolean> => (await bed.metric(agent, 'sluice_endpoints_audited')) === 1;
    const nothingArrives = async (): Promise<void> => {
      arrived();
      const before = await counted();
      await pause(500);
      assert.equal(arrived(), 0);
      assert.equal(await counted(), before);
    };
    assert.equal(arrived(), 0);
    assert.equal(await counted(), 0);

    await annotate('true');
    await until('audited packets arrive', () => arrived() > 0);
    await until('and are counted', async () => (await counted()) > 10);
    assert.ok(await isAudited());
    await bed.stop(agent, 'SIGKILL');
    arrived();
    await until('the kernel goes on without an agent', () => arrived() > 0);
    agent = await bed.startReady();
    assert.ok(arrived() > 0);

    await annotate('yes');
    await until('a value that says nothing enforces', async () => !(await isAudited()));
    await nothingArrives();
    await until('it is told', async () =>
      (await bed.eventsOf(namespace)).some((event) => event.startsWith('InvalidPolicyAudit: ')),
    );
    await annotate('true');
    await until('audited again', () => arrived() > 0);
    await annotate(null);
    await until('enforced again', async () => !(await isAudited()));
    await nothingArrives();
  });

  it('connections without room are told, with the remedy, and counted; policy holds', async () => {
    let agent = await bed.startReady({ mapSizes: { conntrack: 1024 } });
    const pair = bed.pair();
    await bed.createPolicy('no-egress', { ...nowhere, egress: [{ ports: [{ protocol: 'UDP' }] }] });
    await bed.add('web', pair);
    assert.equal(await bed.metric(agent, 'sluice_map_entries_max{map="conntrack"}'), 1024);
    pair.run(
      'pod',
      'bash',
      '-c',
      `for port in {1000..1899}; do echo > /dev/udp/${address.peer4}/$port; done 2> /dev/null`,
    );
    // It looks when it starts, and then once a minute.
    await bed.stop(agent, 'SIGTERM');
    agent = await bed.startReady({ mapSizes: { conntrack: 1024 } });
    const full = /^MapFull: map conntrack has no room, .*raise --map-size conntrack=N and restart/;
    await until('it is told', async () => (await bed.eventsOf(node)).some((event) => full.test(event)));
    assert.equal((await fetch(`${agent.healthUrl}/readyz`)).status, 200, 'what it enforces is right');
    const alive = await bed.metric(agent, 'sluice_map_entries{map="conntrack"}');
    assert.ok(alive > 512 && alive <= 1024, `${alive} connections`);
    assert.equal(open(pair), 'out cut, in open');
  });

  it('an ipcache without room: unknown addresses are dropped, known ones go on; told, with the remedy; the remedy works', async () => {
    const agent = await bed.startReady({ mapSizes: { ipcache: 32 } });
    const pair = bed.pair();
    const [late4, late6] = ['10.0.0.99', 'fd00::99'];
    pair.run('peer', 'ip', 'addr', 'add', `${late4}/24`, 'dev', 'eth0');
    pair.run('peer', 'ip', 'addr', 'add', `${late6}/64`, 'dev', 'eth0', 'nodad');
    const lateIsCut = (): boolean => pair.isCut('pod', late4) && pair.isCut('pod', late6);
    await bed.createPolicy('to-peers', toPeers);
    await bed.add('web', pair);
    assert.equal(open(pair), 'out open, in open');
    assert.ok(lateIsCut(), 'no pod has the address yet');

    const crowd = Array.from({ length: 20 }, (_, i) => `crowd${i}`);
    for (const [i, name] of crowd.entries())
      await bed.createPod(name, { app: 'crowd' }, { ips: [`10.77.0.${i}`, `fd77::${i}`] });
    await told(agent, /^MapFull: .*no pod or namespace selector lets them in \(raise --map-size ipcache=N and restart/);
    await bed.createPod('late', { app: 'peer' }, { ips: [late4, late6] });
    await pause(1_000);
    assert.ok(lateIsCut(), 'there is no room for the address, so it is nobody’s');
    assert.equal(open(pair), 'out open, in open', 'known addresses go on');
    const [used, max] = await Promise.all(
      ['sluice_map_entries', 'sluice_map_entries_max'].map((name) => bed.metric(agent, `${name}{map="ipcache"}`)),
    );
    assert.equal(max, 31, 'one place stays free');
    assert.equal(used, 29, 'and a sixteenth for prefixes');
    assert.ok((await bed.metric(agent, 'sluice_addresses_left_out')) > 2);

    const statusOf = async (): Promise<string> =>
      renderStatus([await nodeInfoOf(unixAgent(node, join(bed.dir, 'agent.sock')))]);
    assert.match(
      await statusOf(),
      /has problems\n\n! node1: \d+ are left out: .*raise --map-size ipcache=N and restart/,
    );

    const except = Array.from({ length: 32 }, (_, i) => `10.0.${i + 1}.0/24`);
    const blocks = [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except } }] }];
    await bed.createPolicy('blocks', { ...nowhere, egress: blocks });
    await until('an except that could be missed closes', () => pair.isCut('pod', address.peer4));
    assert.equal(open(pair), 'out cut, in open', 'what no policy isolates goes on');
    await told(agent, /^MapFull: .*the node may know 31 prefixes .*raise/);
    const refused = bed.pair();
    await bed.createPod('refused', { app: 'web' });
    assert.equal((await bed.cni('ADD', 'refused', refused)).status, 1);
    assert.equal(bed.endpointPins().length, 1, 'nothing of the refused pod stays');

    await bed.deletePolicy('blocks');
    await becomes(pair, 'out open, in open');
    stack.use(await Traffic.start(pair.peer, 'echo', '::', 4711));
    const asking = stack.use(await Traffic.start(pair.pod, 'udp-ask', address.peer4, 4711));
    await bed.stop(agent, 'SIGTERM');
    const roomier = await bed.startReady({ mapSizes: { ipcache: 128 } });
    await until('the address gets the room', () => !pair.isCut('pod', late4) && !pair.isCut('pod', late6));
    assert.equal(await bed.metric(roomier, 'sluice_map_entries_max{map="ipcache"}'), 127);
    assert.equal(await bed.metric(roomier, 'sluice_addresses_left_out'), 0);
    assert.match(await statusOf(), /ready$/);
    const { lost, errors } = await asking.stop();
    assert.deepEqual([lost, errors], [0, 0], 'the remedy costs no packet');
  });

  /** On the Node, and for as long as it lasts the agent is not ready. */
  async function told({ healthUrl }: RunningAgent, message: RegExp): Promise<void> {
    await until(`the node has an event ${message}`, async () =>
      (await bed.eventsOf(node)).some((event) => message.test(event)),
    );
    assert.equal((await fetch(`${healthUrl}/readyz`)).status, 503);
  }
});
