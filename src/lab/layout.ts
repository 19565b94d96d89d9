/** Every name and path of a lab, derived from its directory and its id. Nothing else in the lab builds a path. */
import { join } from 'node:path';

export interface LabIdentity {
  /** Absolute. */
  readonly dir: string;
  /** Six hexadecimal digits: part of every name that is global on the machine, so labs can run side by side. */
  readonly id: string;
}

export interface NodePaths {
  readonly name: string;
  readonly netns: string;
  /** Sockets, FIFOs and the bpffs: short paths on tmpfs (a unix socket's path has 107 bytes, and 9p refuses special files). */
  readonly runDir: string;
  readonly cniSocket: string;
  /** The API for tools: `sluice policy`, `sluice drops`. */
  readonly agentSocket: string;
  readonly kubeletSocket: string;
  readonly bpffs: string;
  /** Below the lab's cgroup; pods are its children. */
  readonly cgroup: string;
  /** What the node must remember across restarts of its processes. */
  readonly stateDir: string;
  readonly agentStateDir: string;
}

export interface LabLayout extends LabIdentity {
  /** Written before anything else is made, so that `lab down` always knows what to look for. */
  readonly stateFile: string;
  readonly lockFile: string;
  readonly kubeconfig: string;
  /** The same cluster as seen from inside the node namespaces. */
  readonly nodeKubeconfig: string;
  /** Of the accounts in deploy/rbac.yaml; the agents' is as seen from inside the node namespaces. */
  readonly agentKubeconfig: string;
  readonly controllerKubeconfig: string;
  /** conf.yml of agents and controller, as a cluster mounts its ConfigMap. */
  readonly confFile: string;
  readonly logsDir: string;
  readonly apiDir: string;
  readonly controllerDir: string;
  /** What the supervisor knows of its processes. */
  readonly processesFile: string;
  readonly cniBinDir: string;
  readonly runDir: string;
  /** A copy of the state file, for `lab down` after DIR was deleted. */
  readonly runStateFile: string;
  readonly cgroup: string;
  readonly switchNetns: string;
}

export const netnsDir = '/run/netns';
export const runRoot = '/run';
export const runDirPrefix = 'sluice-lab-';

export function labLayout({ dir, id }: LabIdentity): LabLayout {
  const runDir = join(runRoot, `${runDirPrefix}${id}`);
  return {
    dir,
    id,
    stateFile: join(dir, 'lab.json'),
    lockFile: join(dir, 'lock'),
    kubeconfig: join(dir, 'kubeconfig'),
    nodeKubeconfig: join(dir, 'node.kubeconfig'),
    agentKubeconfig: join(dir, 'agent.kubeconfig'),
    controllerKubeconfig: join(dir, 'controller.kubeconfig'),
    confFile: join(dir, 'conf.yml'),
    logsDir: join(dir, 'logs'),
    apiDir: join(dir, 'api'),
    controllerDir: join(dir, 'controller'),
    processesFile: join(dir, 'processes.json'),
    cniBinDir: join(dir, 'cni-bin'),
    runDir,
    runStateFile: join(runDir, 'lab.json'),
    cgroup: `${runDirPrefix}${id}`,
    switchNetns: join(netnsDir, `${netnsPrefix(id)}switch`),
  };
}

export function nodePaths(lab: LabLayout, name: string): NodePaths {
  const runDir = join(lab.runDir, name);
  const stateDir = join(lab.dir, 'nodes', name);
  return {
    name,
    netns: join(netnsDir, `${netnsPrefix(lab.id)}${name}`),
    runDir,
    cniSocket: join(runDir, 'cni.sock'),
    agentSocket: join(runDir, 'agent.sock'),
    kubeletSocket: join(runDir, 'kubelet.sock'),
    bpffs: join(runDir, 'bpf'),
    cgroup: `${lab.cgroup}/${name}`,
    stateDir,
    agentStateDir: join(stateDir, 'agent'),
  };
}

/** Prefix of every named netns of the lab. */
export function netnsPrefix(id: string): string {
  return `sluice-${id}-`;
}

/** node1, node2, … */
export function nodeNames(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `node${index + 1}`);
}

/** `sluice-<lab id>-<short pod uid>`; a uid's first group has 32 random bits. */
export function podNetnsPath(labId: string, podUid: string): string {
  return join(netnsDir, `${netnsPrefix(labId)}${podUid.replace(/-/g, '').slice(0, 10)}`);
}
