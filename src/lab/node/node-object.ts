/** The Node object and its heartbeats. */
import { cpus, release, totalmem } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { KubeObject } from '../../api/kubernetes.ts';
import { nodes } from '../../api/resources.ts';
import { formatErrorChain } from '../../core/error.ts';
import type { Logger } from '../../core/log.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists } from '../../kube/error.ts';
import { timestamp } from '../../core/timestamp.ts';

/** kubelet's nodeStatusReportFrequency is 5 minutes beside leases; without leases it was 10 s. */
const heartbeatMs = 10_000;
const maxPods = 110;

export interface NodeIdentity {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly client: KubeClient;
  readonly log: Logger;
}

/** Registers the node (again), then beats until the signal is aborted. */
export async function registerNode(node: NodeIdentity, signal: AbortSignal): Promise<void> {
  const labels = {
    'kubernetes.io/hostname': node.name,
    'kubernetes.io/os': 'linux',
    'kubernetes.io/arch': process.arch === 'x64' ? 'amd64' : process.arch,
  };
  try {
    await node.client.create(nodes, { metadata: { name: node.name, labels }, spec: {} } as KubeObject);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
  const readySince = timestamp(Date.now());
  await beat(node, readySince);
  void (async () => {
    while (!signal.aborted) {
      await delay(heartbeatMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      await beat(node, readySince).catch((error: unknown) =>
        node.log.warn({}, `heartbeat failed: ${formatErrorChain(error)}`),
      );
    }
  })();
}

async function beat(node: NodeIdentity, readySince: string): Promise<void> {
  const body = { status: nodeStatus(node, readySince) };
  await node.client.patch(nodes, { name: node.name }, { type: 'merge', body }, { subresource: 'status' });
}

function nodeStatus(node: NodeIdentity, readySince: string): object {
  const resources = { cpu: String(cpus().length), memory: `${Math.floor(totalmem() / 1024)}Ki`, pods: String(maxPods) };
  return {
    addresses: [
      ...node.addresses.map((address) => ({ type: 'InternalIP', address })),
      { type: 'Hostname', address: node.name },
    ],
    capacity: resources,
    allocatable: resources,
    nodeInfo: {
      kernelVersion: release(),
      osImage: 'Sluice lab',
      operatingSystem: 'linux',
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      containerRuntimeVersion: 'sluice-lab://0',
      kubeletVersion: 'v1.33.0-sluice',
      kubeProxyVersion: '',
      machineID: '',
      systemUUID: '',
      bootID: '',
    },
    conditions: [
      {
        type: 'MemoryPressure',
        status: 'False',
        reason: 'KubeletHasSufficientMemory',
        message: 'kubelet has sufficient memory available',
      },
      {
        type: 'DiskPressure',
        status: 'False',
        reason: 'KubeletHasNoDiskPressure',
        message: 'kubelet has no disk pressure',
      },
      {
        type: 'PIDPressure',
        status: 'False',
        reason: 'KubeletHasSufficientPID',
        message: 'kubelet has sufficient PID available',
      },
      { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'kubelet is posting ready status' },
    ].map((condition) => ({ ...condition, lastHeartbeatTime: timestamp(Date.now()), lastTransitionTime: readySince })),
  };
}
