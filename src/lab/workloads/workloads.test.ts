/** The controllers against the embedded API server, over HTTPS; the test plays the nodes' part. */

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type {
  Deployment,
  EndpointSlice,
  Event,
  KubeObject,
  Pod,
  ReplicaSet,
  StatefulSet,
} from '../../api/kubernetes.ts';
import {
  daemonSets,
  deployments,
  endpointSlices,
  events,
  namespaces,
  nodes,
  pods,
  replicaSets,
  services,
  statefulSets,
  type GroupVersionResource,
} from '../../api/resources.ts';
import { systemClock } from '../../core/clock.ts';
import { silentLogger } from '../../core/log.ts';
import { createKubeClient, type KubeClient } from '../../kube/client.ts';
import { loadKubeConfig } from '../../kube/config.ts';
import { isNotFound } from '../../kube/error.ts';
import { startTestApiServer, type TestApiServer } from '../api/testing.ts';
import { startWorkloads, type Workloads } from './start.ts';

const namespace = 'demo';
const labels = { app: 'web' };
const template = (image = 'one'): object => ({
  metadata: { labels },
  spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'c', image }] },
});

describe('workload controllers', () => {
  const stop = new AbortController();
  let server: TestApiServer;
  let client: KubeClient;
  let workloads: Workloads;
  let kubelet: Promise<void>;

  before(async () => {
    server = await startTestApiServer();
    client = createKubeClient(loadKubeConfig({ path: server.kubeConfigPath }));
    await client.create(namespaces, { metadata: { name: namespace } });
    for (const name of ['node1', 'node2']) {
      const status = { conditions: [{ type: 'Ready', status: 'True' }] };
      const made = await client.create(nodes, { metadata: { name } });
      await client.replaceStatus(nodes, { ...made, status } as KubeObject);
    }
    workloads = await startWorkloads({ client, log: silentLogger, clock: systemClock, signal: stop.signal });
    kubelet = playKubelet(client, stop.signal);
  });

  after(async () => {
    stop.abort();
    await workloads.stopped;
    await kubelet;
    client.close();
    await server.close();
  });

  const podsOf = async (): Promise<readonly Pod[]> => (await client.list<Pod>(pods, { namespace })).items;
  const create = (gvr: GroupVersionResource, name: string, spec: object): Promise<KubeObject> =>
    client.create(gvr, { metadata: { name, namespace }, spec } as KubeObject);
  const rolledOut = (name: string, image: string): Promise<void> =>
    eventually(`deployment ${name} rolled out`, async () => {
      const { metadata, spec, status } = await client.get<Deployment>(deployments, { namespace, name });
      const replicas = spec?.replicas ?? 1;
      const all = await podsOf();
      return (
        status?.observedGeneration === metadata?.generation &&
        status?.updatedReplicas === replicas &&
        status?.availableReplicas === replicas &&
        status?.replicas === replicas &&
        all.length === replicas &&
        all.every((pod) => pod.spec?.containers[0]?.image === image)
      );
    });

  it('rolls a Deployment out, one replica on each node, and tells about it', async () => {
    await create(deployments, 'web', { replicas: 2, selector: { matchLabels: labels }, template: template() });
    await rolledOut('web', 'one');
    assert.deepEqual(new Set((await podsOf()).map(({ spec }) => spec?.nodeName)), new Set(['node1', 'node2']));
    await eventually('events', async () => {
      const reasons = (await client.list<Event>(events, { namespace })).items.map(({ reason }) => reason);
      return ['ScalingReplicaSet', 'SuccessfulCreate', 'Scheduled'].every((reason) => reasons.includes(reason));
    });
    const [set] = (await client.list<ReplicaSet>(replicaSets, { namespace })).items;
    const hash = set?.metadata?.labels?.['pod-template-hash'] ?? '';
    assert.match(hash, /^[a-z0-9]{8,10}$/);
    assert.equal(set?.metadata?.name, `web-${hash}`);
    for (const { metadata } of await podsOf()) {
      assert.match(metadata?.name ?? '', new RegExp(`^web-${hash}-[a-z0-9]{5}$`));
      assert.equal(metadata?.labels?.['pod-template-hash'], hash);
    }
  });

  it('replaces a deleted pod, and never has more than asked for', async () => {
    const [victim] = await podsOf();
    await client.delete(pods, { namespace, name: victim?.metadata?.name ?? '' });
    await eventually('replacement', async () => {
      const active = (await podsOf()).filter(({ metadata }) => metadata?.deletionTimestamp === undefined);
      assert.ok(active.length <= 2);
      return active.length === 2 && active.every(({ metadata }) => metadata?.uid !== victim?.metadata?.uid);
    });
  });

  it('rolls over to a new template and back, keeping revisions', async () => {
    const setTemplate = (image: string): Promise<unknown> =>
      client.patch(
        deployments,
        { namespace, name: 'web' },
        { type: 'merge', body: { spec: { template: template(image) } } },
      );
    const revision = async (): Promise<string | undefined> =>
      (await client.get(deployments, { namespace, name: 'web' })).metadata?.annotations?.[
        'deployment.kubernetes.io/revision'
      ];
    await setTemplate('two');
    await rolledOut('web', 'two');
    assert.equal(await revision(), '2');
    await setTemplate('one');
    await rolledOut('web', 'one');
    await eventually('revision 3', async () => (await revision()) === '3');
    assert.equal((await client.list(replicaSets, { namespace })).items.length, 2);
  });

  it('scales, and keeps the EndpointSlice in step', async () => {
    await client.create(services, {
      metadata: { name: 'web', namespace },
      spec: { selector: labels, ports: [{ port: 80, targetPort: 8080 }] },
    } as KubeObject);
    await client.patch(deployments, { namespace, name: 'web' }, { type: 'merge', body: { spec: { replicas: 5 } } });
    await rolledOut('web', 'one');
    const ready = async (): Promise<number> => {
      const slices = (await client.list<EndpointSlice>(endpointSlices, { namespace })).items;
      return slices.flatMap(({ endpoints }) => endpoints ?? []).filter(({ conditions }) => conditions?.ready === true)
        .length;
    };
    await eventually('five endpoints', async () => (await ready()) === 5);
    await client.patch(deployments, { namespace, name: 'web' }, { type: 'merge', body: { spec: { replicas: 0 } } });
    await eventually('no pods', async () => (await podsOf()).length === 0 && (await ready()) === 0);
    await client.delete(deployments, { namespace, name: 'web' });
  });

  it('starts a StatefulSet in order and scales it down in reverse', async () => {
    await create(statefulSets, 'db', {
      replicas: 3,
      serviceName: 'db',
      selector: { matchLabels: labels },
      template: template(),
    });
    await eventually(
      'three members',
      async () => (await client.get<StatefulSet>(statefulSets, { namespace, name: 'db' })).status?.readyReplicas === 3,
    );
    assert.deepEqual((await podsOf()).map(({ metadata }) => metadata?.name).sort(), ['db-0', 'db-1', 'db-2']);
    await client.patch(statefulSets, { namespace, name: 'db' }, { type: 'merge', body: { spec: { replicas: 1 } } });
    await eventually(
      'one member',
      async () => (await podsOf()).map(({ metadata }) => metadata?.name).join() === 'db-0',
    );
    await client.delete(statefulSets, { namespace, name: 'db' });
    await eventually('no pods', async () => (await podsOf()).length === 0);
  });

  it('runs a DaemonSet pod on every node, new ones too', async () => {
    await create(daemonSets, 'log', { selector: { matchLabels: labels }, template: template() });
    const placed = async (): Promise<string> =>
      (await podsOf())
        .map(({ spec }) => spec?.nodeName)
        .sort()
        .join();
    await eventually('two daemons', async () => (await placed()) === 'node1,node2');
    await client.create(nodes, { metadata: { name: 'node3' } });
    await eventually('three daemons', async () => (await placed()) === 'node1,node2,node3');
    await client.delete(nodes, { name: 'node3' });
    await eventually('two daemons again', async () => (await placed()) === 'node1,node2');
    await client.delete(daemonSets, { namespace, name: 'log' });
    await eventually('no pods', async () => (await podsOf()).length === 0);
  });

  it('says why a pod cannot be scheduled', async () => {
    await create(pods, 'lost', { nodeSelector: { disk: 'ssd' }, containers: [{ name: 'c', image: 'x' }] });
    await eventually('FailedScheduling', async () => {
      const told = (await client.list<Event>(events, { namespace })).items.find(
        ({ reason }) => reason === 'FailedScheduling',
      );
      return told?.message === "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    });
    const { status } = await client.get<Pod>(pods, { namespace, name: 'lost' });
    assert.equal(status?.conditions?.find(({ type }) => type === 'PodScheduled')?.reason, 'Unschedulable');
  });
});

const deadlineMs = 20_000;

async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await systemClock.sleep(20);
  }
}

/** Makes bound pods ready and removes terminating ones, as a node would. */
async function playKubelet(client: KubeClient, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    for (const pod of (await client.list<Pod>(pods, { namespace })).items) await tendPod(client, pod);
    await systemClock.sleep(10, signal).catch(() => undefined);
  }
}

async function tendPod(client: KubeClient, pod: Pod): Promise<void> {
  const { name = '', deletionTimestamp } = pod.metadata ?? {};
  if ((pod.spec?.nodeName ?? '') === '') return;
  try {
    if (deletionTimestamp !== undefined) await client.delete(pods, { namespace, name }, { gracePeriodSeconds: 0 });
    else if (pod.status?.phase !== 'Running') await client.replaceStatus(pods, { ...pod, status: runningStatus(name) });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

function runningStatus(name: string): Pod['status'] {
  const ip = `10.1.${name.length}.${[...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 251, 7)}`;
  const now = new Date().toISOString();
  return {
    phase: 'Running',
    podIP: ip,
    podIPs: [{ ip }],
    conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: now }],
  };
}
