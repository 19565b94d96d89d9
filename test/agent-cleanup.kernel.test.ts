/** `sluice agent cleanup` on a node whose agent has stopped: everything goes, and nothing before it is asked for. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cleanUp } from '../src/agent/cleanup.ts';
import type { Pod } from '../src/api/kubernetes.ts';
import { pods } from '../src/api/resources.ts';
import { silentLogger } from '../src/core/log.ts';
import { ABI_VERSION } from '../src/datapath/abi.ts';
import { address, errnoIn, randomSuffix, type TestPair } from '../src/datapath/test-bed.ts';
import { Cgroup } from '../src/kernel/cgroup.ts';
import { haveTcx, queryTcx, RtNetlink, withNetns } from '../src/kernel/index.ts';
import { sendFrames } from '../src/kernel/packet-send.ts';
import { AgentBed, namespace, node, type RunningAgent } from './agent-bed.ts';

describe('agent cleanup', () => {
  let bed: AgentBed;
  let agent: RunningAgent;
  let pair: TestPair;
  let cgroups: Cgroup;
  let container: Cgroup;

  before(async () => {
    bed = await AgentBed.create();
    agent = await bed.startReady();
    pair = bed.pair();
    const annotations = { 'kubernetes.io/ingress-bandwidth': '10M', 'kubernetes.io/egress-bandwidth': '20M' };
    const spec = { nodeName: node, containers: [{ name: 'c', image: 'none' }] };
    const metadata = { namespace, name: 'web', labels: { app: 'web' }, annotations };
    const pod = await bed.kube.create<Pod>(pods, { metadata, spec });
    // As the kubelet makes it with the systemd driver.
    cgroups = Cgroup.named(`sluice-test-${randomSuffix()}.slice`);
    const slice = `kubepods-burstable-pod${pod.metadata?.uid?.replaceAll('-', '_') ?? ''}.slice`;
    container = cgroups.child(`kubepods-burstable.slice/${slice}/c`);
    container.create();
    await bed.createPolicy('closed', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
    const answer = await bed.cni('ADD', 'web', pair);
    assert.equal(answer.status, 0, JSON.stringify(answer.body));
  });
  after(async () => {
    await bed.close();
    cgroups.remove();
  });

  const run = (dryRun: boolean) =>
    cleanUp({
      bpffsDir: bed.bpffsDir,
      stateDir: join(bed.dir, 'state'),
      cniSocketPath: join(bed.dir, 'cni.sock'),
      ...{ dryRun, log: silentLogger },
    });

  /** What the pod's namespace holds of us. */
  function found(): string[] {
    using netlink = RtNetlink.open(pair.pod);
    const { ifindex } = netlink.mustLink('eth0');
    const programs = haveTcx()
      ? withNetns(pair.pod, () => [...queryTcx(ifindex, 'ingress'), ...queryTcx(ifindex, 'egress')])
      : [];
    return [
      ...netlink.links().flatMap(({ kind }) => (kind === 'ifb' ? ['ifb'] : [])),
      ...netlink.qdiscs(ifindex).flatMap(({ kind }) => (/htb|tbf|clsact/.test(kind) ? [kind] : [])),
      ...programs.map(() => 'program'),
    ];
  }

  const sendDirectly = (): string =>
    errnoIn(container, () => {
      sendFrames(pair.pod, 'eth0', [new Uint8Array(60)], { direct: true });
    });

  it('refuses while the agent runs', async () => {
    assert.equal(sendDirectly(), 'EPERM', 'ADD guards the sockets of the pod');
    await assert.rejects(run(false), /another agent runs/);
    await bed.stop(agent, 'SIGTERM');
    assert(!pair.ping('pod', address.peer4), 'policy outlives the agent');
  });

  it('lists with --dry-run what it then removes, and the pod is free', async () => {
    const before = found();
    assert(before.includes('ifb'), before.join());
    const planned = await run(true);
    assert.deepEqual([found(), sendDirectly()], [before, 'EPERM'], 'a dry run changes nothing');
    assert.deepEqual([...new Set(planned.map(({ what }) => what))].sort(), [
      'bpffs',
      'endpoint',
      'limits',
      'programs',
      'records',
      'socket-guard',
    ]);
    assert(planned.some(({ object }) => object === `eth0 of pod ${namespace}/web`));
    assert.deepEqual(await run(false), planned);
    // Where hooks are filters, the empty clsact stays.
    assert.deepEqual(found(), haveTcx() ? [] : ['clsact']);
    assert(pair.ping('pod', address.peer4));
    assert.equal(sendDirectly(), 'done');
    for (const path of [bed.bpffsDir, join(bed.dir, 'state')]) assert(!existsSync(path), path);
    assert.deepEqual(await run(false), [], 'a second time there is nothing');
  });

  it('lists and removes what an agent of a version with other maps left', async () => {
    agent = await bed.startReady({ abiVersion: ABI_VERSION + 1 });
    const answer = await bed.cni('ADD', 'web', pair);
    assert.equal(answer.status, 0, JSON.stringify(answer.body));
    await bed.stop(agent, 'SIGTERM');
    const [before, names] = [found(), readdirSync(bed.bpffsDir)];
    assert(!pair.ping('pod', address.peer4), 'it enforces');
    const planned = await run(true);
    assert(
      planned.some(({ what, object }) => what === 'maps' && object.includes(bed.bpffsDir)),
      JSON.stringify(planned),
    );
    assert.deepEqual([found(), readdirSync(bed.bpffsDir)], [before, names], 'a dry run changes nothing');
    assert.deepEqual(await run(false), planned);
    assert.deepEqual(found(), haveTcx() ? [] : ['clsact']);
    assert(pair.ping('pod', address.peer4));
    assert(!existsSync(bed.bpffsDir));
  });
});
