/**
 * Controller, pools and the address plugin against the embedded API server, over HTTPS: what the unit tests show with
 * stand-ins. The same with a real kube-apiserver: SLUICE_TEST_KUBECONFIG=FILE (its cluster is written to).
 */
import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CniCommand, CniRequest } from '../src/api/cni.ts';
import type { Event, KubeObject, Namespace, Node, Pod } from '../src/api/kubernetes.ts';
import {
  events,
  namespaces,
  networkAttachmentDefinitions,
  nodes,
  pods,
  spiderEndpoints,
  spiderIPPools,
  spiderMultusConfigs,
  type GroupVersionResource,
} from '../src/api/resources.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import { createKubeIpamDeps } from '../src/cni/ipam-kube.ts';
import { createIpamPlugin } from '../src/cni/ipam.ts';
import { startController, type RunningController } from '../src/controller/start.ts';
import { silentLogger } from '../src/core/log.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { isNotFound } from '../src/kube/error.ts';
import { Informer } from '../src/kube/informer.ts';
import type { TestApiServer } from '../src/lab/api/testing.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';

const external = process.env['SLUICE_TEST_KUBECONFIG'];
const suffix = Math.random().toString(36).slice(2, 8);
const namespace = `sluice-${suffix}`;
const stop = new AbortController();
const warnings: string[] = [];

let server: TestApiServer | undefined;
let client: KubeClient;
let controller: RunningController;

function kubeConfig() {
  return loadKubeConfig({ path: external ?? server?.kubeConfigPath });
}

before(async () => {
  if (external === undefined) server = await (await import('../src/lab/api/testing.ts')).startTestApiServer();
  client = createKubeClient(kubeConfig(), { onWarning: (warning) => warnings.push(warning) });
  await applyDefinitions(client);
  await client.create(namespaces, { metadata: { name: namespace } });
  controller = await startController({
    kubeConfig: kubeConfig(),
    webhook: { host: '127.0.0.1', port: 0 },
    healthPort: 0,
    log: silentLogger,
    signal: stop.signal,
  });
  await controller.ready;
});

after(async () => {
  stop.abort();
  await controller.stopped;
  if (external !== undefined) await client.delete(namespaces, { name: namespace });
  client.close();
  await server?.close();
});

async function eventually(check: () => Promise<boolean>, what: string): Promise<void> {
  const endMs = Date.now() + 10_000;
  while (!(await check())) {
    assert.ok(Date.now() < endMs, `not within 10 s: ${what}`);
    await sleep(20);
  }
}

async function exists(gvr: GroupVersionResource, name: string): Promise<boolean> {
  try {
    await client.get(gvr, { namespace: gvr.namespaced ? namespace : undefined, name });
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

/** A /24 of its own for each pool, so that runs against one cluster do not overlap. */
let subnets = Math.floor(Math.random() * 60_000);
function nextSubnet(): string {
  subnets += 1;
  return `10.${Math.floor(subnets / 256) % 256}.${subnets % 256}`;
}

function poolObject(name: string, spec: object): KubeObject {
  return { metadata: { name: `${name}-${suffix}` }, spec } as KubeObject;
}

function configObject(name: string, spec: object): KubeObject {
  const annotations = { 'cni.spidernet.io/cniconfig-name': 'spidernet-chainer' };
  return { metadata: { name, namespace, annotations }, spec } as KubeObject;
}

const ipvlan = {
  cniType: 'ipvlan',
  ipvlan: { master: ['ens192'], ippools: { ipv4: ['ens192-v4'] } },
  chainCNIJsonData: ['{\n    "type": "cilium-cni"\n}\n'],
};

const walkthroughConfig =
  '{"cniVersion":"0.3.1","name":"spidernet-chainer","plugins":[{"type":"ipvlan","master":"ens192","ipam":{"type":"spiderpool","default_ipv4_ippool":["ens192-v4"]}},{"type":"cilium-cni"},{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}]}';

async function attachmentConfig(name: string): Promise<string | undefined> {
  if (!(await exists(networkAttachmentDefinitions, name))) return undefined;
  const attachment = await client.get(networkAttachmentDefinitions, { namespace, name });
  return (attachment as { spec?: { config?: string } }).spec?.config;
}

describe('attachments', () => {
  it("equals the walkthrough's, byte for byte, and is restored at once", async () => {
    await client.create(spiderMultusConfigs, configObject('ipvlan-conf', ipvlan));
    const isThere = async (): Promise<boolean> => (await attachmentConfig('ipvlan-conf')) === walkthroughConfig;
    await eventually(isThere, 'attachment made');
    await client.delete(networkAttachmentDefinitions, { namespace, name: 'ipvlan-conf' });
    await eventually(isThere, 'attachment restored after a deletion');
    const body = { spec: { config: '{}' } };
    await client.patch(networkAttachmentDefinitions, { namespace, name: 'ipvlan-conf' }, { type: 'merge', body });
    await eventually(isThere, 'attachment restored after a change');
    const told = async (): Promise<boolean> =>
      (await client.list<Event>(events, { namespace })).items.some(
        ({ reason, involvedObject }) => reason === 'AttachmentCreated' && involvedObject?.name === 'ipvlan-conf',
      );
    await eventually(told, 'event written');
  });

  for (const [what, spec, message] of [
    [
      'an unknown type',
      { cniType: 'ipvlann' },
      /spec\.cniType.*Unsupported value: "ipvlann": supported values: "macvlan"/,
    ],
    ['a missing block', { cniType: 'ipvlan' }, /no spec\.ipvlanConfig specified/],
  ] as const) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(client.create(spiderMultusConfigs, configObject('bad', spec)), message);
      assert.equal(await exists(networkAttachmentDefinitions, 'bad'), false);
    });
  }
});

describe('pools', () => {
  it('clears host bits of the subnet, says so, and counts', async () => {
    const net = nextSubnet();
    const name = `host-bits-${suffix}`;
    warnings.length = 0;
    await client.create(
      spiderIPPools,
      poolObject('host-bits', { subnet: `${net}.230/24`, ips: [`${net}.100-${net}.108`] }),
    );
    assert.match(warnings.join('\n'), /host bits/);
    const read = async (): Promise<SpiderIPPool> =>
      (await client.get(spiderIPPools, { name })) as unknown as SpiderIPPool;
    assert.equal((await read()).spec.subnet, `${net}.0/24`);
    await eventually(async () => (await read()).status?.totalIPCount === 9, 'addresses counted');
    await client.delete(spiderIPPools, { name });
    await eventually(async () => !(await exists(spiderIPPools, name)), 'unused pool deleted in spite of its finalizer');
  });

  for (const [what, spec, message] of [
    ['a bad subnet', { subnet: '10.0.0.0/33' }, /spec\.subnet.*invalid CIDR format in IPv4 '10\.0\.0\.0\/33'/],
    ['a range outside', { subnet: '10.250.0.0/24', ips: ['10.251.0.1'] }, /not match base subnet: 10\.250\.0\.0\/24/],
    ['no subnet', {}, /spec\.subnet.*Required value/],
  ] as const) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(client.create(spiderIPPools, poolObject('bad', spec)), message);
    });
  }

  it('admits one of 20 overlapping pools that are created at once', async () => {
    const net = nextSubnet();
    const spec = { subnet: `${net}.0/24`, ips: [`${net}.1-${net}.9`] };
    const creations = Array.from({ length: 20 }, (_, n) => client.create(spiderIPPools, poolObject(`race${n}`, spec)));
    const outcomes = await Promise.allSettled(creations);
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled')
        await client.delete(spiderIPPools, { name: outcome.value.metadata?.name ?? '' });
      else assert.match(String(outcome.reason), /overlap with IPPool/);
    }
  });
});

type Plugin = (command: CniCommand, pod: Pod, pool: string) => ReturnType<ReturnType<typeof createIpamPlugin>>;

/** An agent's address plugin with a client and informers of its own, as on another node. */
async function startPlugin(nodeName: string, signal: AbortSignal): Promise<Plugin> {
  const own = createKubeClient(kubeConfig());
  const informer = <T extends KubeObject>(gvr: GroupVersionResource): Informer<T> =>
    new Informer<T>({ client: own, gvr, log: silentLogger });
  const copies = {
    pools: informer<KubeObject>(spiderIPPools),
    pods: informer<Pod>(pods),
    namespaces: informer<Namespace>(namespaces),
    nodes: informer<Node>(nodes),
  };
  const running = Promise.all(Object.values(copies).map((each) => each.start(signal)));
  void running.finally(() => own.close());
  await Promise.all(Object.values(copies).map((each) => each.synced));
  const plugin = createIpamPlugin(createKubeIpamDeps({ client: own, nodeName, log: silentLogger, ...copies }));
  return (command, pod, pool) => {
    const { name = '', uid = '' } = pod.metadata ?? {};
    const request: CniRequest = {
      plugin: 'spiderpool',
      command,
      containerId: `c-${name}`,
      ifName: 'eth0',
      args: { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name, K8S_POD_UID: uid },
      path: '',
      config: {
        cniVersion: '1.0.0',
        name: 'n',
        type: 'ipvlan',
        ipam: { type: 'spiderpool', default_ipv4_ippool: [pool] },
      },
    };
    return plugin(request, AbortSignal.timeout(30_000));
  };
}

describe('addresses', () => {
  it('gives the pods of 4 nodes exactly the addresses there are, once each, and takes them back', async () => {
    const count = 120;
    const net = nextSubnet();
    const pool = `exact-${suffix}`;
    await client.create(
      spiderIPPools,
      poolObject('exact', { subnet: `${net}.0/24`, ips: [`${net}.1-${net}.${count}`] }),
    );
    const made = await Promise.all(
      Array.from({ length: count + 1 }, (_, n) =>
        client.create<Pod>(pods, {
          metadata: { name: `p${n}`, namespace },
          spec: { containers: [{ name: 'c', image: 'x' }], nodeName: `node${n % 4}` },
        }),
      ),
    );
    const stopNodes = new AbortController();
    setMaxListeners(0, stopNodes.signal);
    try {
      const plugins = await Promise.all([0, 1, 2, 3].map((n) => startPlugin(`node${n}`, stopNodes.signal)));
      const of = (n: number): Plugin => plugins[n % 4] ?? assert.fail();
      const fitting = made.slice(0, count);
      const results = await Promise.all(fitting.map((pod, n) => of(n)('ADD', pod, pool)));
      assert.equal(new Set(results.map((result) => result?.ips[0]?.address)).size, count);
      const endpointCount = async (): Promise<number> =>
        (await client.listAll(spiderEndpoints, { namespace })).items.length;
      assert.equal(await endpointCount(), count);

      await assert.rejects(
        of(0)('ADD', made[count] ?? assert.fail(), pool),
        /all IP addresses used out.*add addresses to spec\.ips/,
      );

      await Promise.all(fitting.map((pod, n) => of(n)('DEL', pod, pool)));
      const left = (await client.get(spiderIPPools, { name: pool })) as unknown as SpiderIPPool;
      assert.deepEqual([left.status?.allocatedIPCount, left.status?.allocatedIPs], [0, undefined]);
      assert.equal(await endpointCount(), 0);
    } finally {
      stopNodes.abort();
      await client.delete(spiderIPPools, { name: pool });
    }
  });
});
