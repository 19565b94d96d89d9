/** What a lab consists of and how it does. */
import { release } from 'node:os';
import type { KubeObject } from '../../api/kubernetes.ts';
import { nodes, pods } from '../../api/resources.ts';
import { createKubeClient } from '../../kube/client.ts';
import { loadKubeConfig } from '../../kube/config.ts';
import { labLayout } from '../layout.ts';
import { isAlive } from '../process.ts';
import { nodeAddresses } from '../underlay/underlay.ts';
import { readLabVm } from '../vm/lab-vm.ts';
import { readReport } from './supervise.ts';
import { mustLabState, type LabState } from './state.ts';
import { vmLabStatus } from './vm.ts';

export interface ProcessStatus {
  readonly name: string;
  readonly pid?: number;
  readonly alive: boolean;
  readonly restarts: number;
  readonly lastExit?: string;
}

export interface NodeStatus {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly netns: string;
  readonly ready: boolean;
  readonly pods: number;
}

export interface LabStatus {
  readonly id: string;
  readonly dir: string;
  readonly link: string;
  readonly kernel: string;
  readonly kubeconfig: string;
  readonly api: { readonly url: string; readonly reachable: boolean };
  readonly nodes: readonly NodeStatus[];
  readonly processes: readonly ProcessStatus[];
  readonly pods: number;
  /** The machine the lab runs in; absent when it runs natively. */
  readonly vm?: { readonly pid?: number; readonly alive: boolean; readonly kernel?: string };
}

/** Throws 'not_found' when DIR holds no lab. */
export async function labStatus(options: { readonly dir: string }): Promise<LabStatus> {
  const state = mustLabState(options.dir);
  if (state.vm !== undefined) return vmStatus(state);
  const lab = labLayout(state);
  const cluster = await readCluster(lab.kubeconfig);
  const report = readReport(lab);
  const names = Array.from({ length: state.nodes }, (_, index) => `node${index + 1}`);
  return {
    id: state.id,
    dir: state.dir,
    link: state.link,
    kernel: release(),
    kubeconfig: lab.kubeconfig,
    api: { url: `https://127.0.0.1:${state.apiPort}`, reachable: cluster !== undefined },
    nodes: names.map((name, index) => ({
      name,
      addresses: Object.values(nodeAddresses(index)) as string[],
      netns: `sluice-${state.id}-${name}`,
      ready: cluster?.readyNodes.has(name) === true,
      pods: cluster?.podsByNode.get(name) ?? 0,
    })),
    processes: [
      ...(report === undefined
        ? []
        : [{ name: 'supervisor', pid: report.supervisor.pid, alive: isAlive(report.supervisor), restarts: 0 }]),
      ...(report?.processes ?? []).map(({ name, process, restarts, lastExit }) => ({
        name,
        pid: process?.pid,
        alive: process !== undefined && isAlive(process),
        restarts,
        lastExit,
      })),
    ],
    pods: cluster === undefined ? 0 : [...cluster.podsByNode.values()].reduce((sum, count) => sum + count, 0),
  };
}

async function vmStatus(state: LabState): Promise<LabStatus> {
  const machine = readLabVm(state.dir);
  const vm = { pid: machine?.process.pid, alive: machine !== undefined, kernel: machine?.release };
  const inside = machine === undefined ? undefined : await vmLabStatus(machine, state).catch(() => undefined);
  const { kubeconfig } = labLayout(state);
  const unknown = {
    kernel: machine?.release ?? 'unknown',
    api: { url: `https://127.0.0.1:${state.apiPort}`, reachable: false },
    nodes: [],
    processes: [],
    pods: 0,
  };
  return { ...unknown, ...inside, id: state.id, dir: state.dir, link: state.link, kubeconfig, vm };
}

interface Cluster {
  readonly readyNodes: ReadonlySet<string>;
  readonly podsByNode: ReadonlyMap<string, number>;
}

interface NodeLike extends KubeObject {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}
interface PodLike extends KubeObject {
  readonly spec?: { readonly nodeName?: string };
}

async function readCluster(kubeconfig: string): Promise<Cluster | undefined> {
  try {
    const client = createKubeClient(loadKubeConfig({ path: kubeconfig }), { userAgent: 'sluice-lab' });
    try {
      const nodeList = (await client.listAll<NodeLike>(nodes)).items;
      const podList = (await client.listAll<PodLike>(pods)).items;
      const ready = nodeList.filter((node) =>
        node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True'),
      );
      const podsByNode = new Map<string, number>();
      for (const pod of podList) {
        const node = pod.spec?.nodeName ?? '';
        podsByNode.set(node, (podsByNode.get(node) ?? 0) + 1);
      }
      return { readyNodes: new Set(ready.map((node) => node.metadata?.name ?? '')), podsByNode };
    } finally {
      client.close();
    }
  } catch {
    return undefined;
  }
}

/** For people. */
export function formatLabStatus(status: LabStatus): string {
  const where =
    status.vm === undefined
      ? ''
      : `, in a virtual machine (pid ${status.vm.pid ?? 'none'}, ${status.vm.alive ? 'running' : 'dead'})`;
  const lines = [
    `lab ${status.id} in ${status.dir}: ${status.link} on kernel ${status.kernel}${where}`,
    `api ${status.api.url} ${status.api.reachable ? 'reachable' : 'NOT reachable'}, ${status.pods} pods`,
    `export KUBECONFIG=${status.kubeconfig}`,
    '',
    ...status.nodes.map(
      (node) => `${node.name}  ${node.ready ? 'Ready' : 'NotReady'}  ${node.addresses.join(', ')}  ${node.pods} pods`,
    ),
    '',
    ...status.processes.map(
      (each) =>
        `${each.name.padEnd(16)} ${each.alive ? 'running' : 'dead   '}  pid ${each.pid ?? '-'}  restarts ${each.restarts}${each.lastExit === undefined ? '' : `  last: ${each.lastExit}`}`,
    ),
  ];
  return lines.join('\n');
}
