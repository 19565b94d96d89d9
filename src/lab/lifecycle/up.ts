/** Brings a lab up, or completes and repairs the one that is there. */
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { closeSync, cpSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import type { EnforcementMode } from '../../api/agent-api.ts';
import type { KubeObject } from '../../api/kubernetes.ts';
import { nodes } from '../../api/resources.ts';
import { SluiceError } from '../../core/error.ts';
import { Cgroup } from '../../kernel/cgroup.ts';
import { kernelHasLink } from '../../kernel/link-support.ts';
import { ensureBpffs } from '../../kernel/mount.ts';
import { packageRoot } from '../../kernel/package-root.ts';
import { createKubeClient, type KubeClient } from '../../kube/client.ts';
import { loadKubeConfig } from '../../kube/config.ts';
import { freePort } from '../free-port.ts';
import { labLayout, nodeNames, nodePaths, type LabLayout } from '../layout.ts';
import { identifyProcess, isAlive, type ProcessId } from '../process.ts';
import { ensureNode, ensureSwitch, maxNodes } from '../underlay/underlay.ts';
import { isControlPlaneReady } from './control-plane-ready.ts';
import { createDefaults } from './defaults.ts';
import { labDown } from './down.ts';
import { cliCommand } from './entry.ts';
import { checkMachine, requireRoot } from './preflight.ts';
import { readLabState, writeFileAtomically, writeLabState, type LabState, type LinkKind } from './state.ts';
import { readReport } from './supervise.ts';
import { vmLabUp } from './vm.ts';
import { waitFor } from './wait.ts';

export interface LabUpOptions {
  /** Absolute. */
  readonly dir: string;
  readonly nodes: number;
  readonly link: LinkKind;
  /** Of the agents; default: `default`. */
  readonly policyEnforcement?: EnforcementMode | undefined;
  /** Where the API listens on the host; port 0 takes a free one. */
  readonly apiHost: string;
  readonly apiPort: number;
  /** PATH, for the node's processes and plugins. */
  readonly path: string;
  /** Of the virtual machine's kernel. */
  readonly vmCacheDir: string;
  readonly uid: number | undefined;
  readonly onProgress: (line: string) => void;
}

/** Resolves with the kubeconfig's path when the cluster can be used. A new lab that fails is taken down again. */
export async function labUp(options: LabUpOptions): Promise<string> {
  requireRoot(options.uid);
  checkNodes(options.nodes);
  using _ = lockLab(options.dir);
  const existing = readLabState(options.dir);
  if (existing !== undefined) checkSame(existing, options);
  try {
    if (existing?.vm !== undefined || (existing === undefined && !kernelHasLink(options.link))) {
      return await vmLabUp(options, existing);
    }
    checkMachine(options.link, options.path, options.uid);
    const state = existing ?? (await newState(options));
    return await bringUp(state, options);
  } catch (error) {
    if (existing !== undefined) throw error;
    throw await undo(options, error);
  }
}

async function bringUp(state: LabState, options: LabUpOptions): Promise<string> {
  const say = options.onProgress;
  const lab = writeLabState(state);
  say(`lab ${state.id} in ${state.dir}: ${state.nodes} nodes on ${state.link}`);
  prepareHost(lab, state);
  await ensureSupervisor(lab);
  say('starting the control plane');
  const failed = (): string | undefined => supervisorFailure(lab);
  await waitFor('the control plane', () => isControlPlaneReady(lab), { failed });
  const client = createKubeClient(loadKubeConfig({ path: lab.kubeconfig }), { userAgent: 'sluice-lab' });
  try {
    say('waiting for nodes, agents and the controller');
    await Promise.all([
      ...nodeNames(state.nodes).flatMap((name) => [
        waitFor(`node ${name} to be ready`, () => nodeReady(client, name), { failed }),
        waitFor(`the agent of ${name}`, () => accepts(nodePaths(lab, name).cniSocket), { failed }),
      ]),
      waitFor('the controller', () => answers(`http://127.0.0.1:${state.healthPort}/readyz`), { failed }),
    ]);
    say('creating the default attachment');
    await createDefaults(client, state.link);
  } finally {
    client.close();
  }
  say('ready');
  return lab.kubeconfig;
}

const confOfLab = '# Of agents and controller, which read it when they start: docs/reference/configuration.md\n';

function prepareHost(lab: LabLayout, state: LabState): void {
  for (const dir of [lab.logsDir, lab.apiDir]) mkdirSync(dir, { recursive: true, mode: 0o700 });
  Cgroup.named(lab.cgroup).create();
  linkPlugins(lab);
  if (!existsSync(lab.confFile)) writeFileAtomically(lab.confFile, confOfLab);
  ensureSwitch(lab.switchNetns);
  nodeNames(state.nodes).forEach((name, index) => {
    const node = nodePaths(lab, name);
    for (const dir of [node.runDir, node.stateDir, node.agentStateDir])
      mkdirSync(dir, { recursive: true, mode: 0o700 });
    Cgroup.named(node.cgroup).create();
    ensureBpffs(node.bpffs);
    ensureNode(lab.switchNetns, node.netns, index);
  });
}

/** The executables of shim/, under the names that network configurations use. */
const shimNames = ['sluice', 'cilium-cni', 'spiderpool', 'coordinator', 'ifacer'];

function linkPlugins(lab: LabLayout): void {
  mkdirSync(lab.cniBinDir, { recursive: true });
  const shim = join(packageRoot(), 'shim', 'build', 'sluice');
  if (!existsSync(shim)) {
    throw new SluiceError({
      code: 'lab_failed',
      operation: 'find',
      object: shim,
      what: 'the CNI executable is not built',
      remedy: 'make build',
    });
  }
  for (const name of shimNames) {
    const link = join(lab.cniBinDir, name);
    rmSync(link, { force: true });
    symlinkSync(shim, link);
  }
}

async function ensureSupervisor(lab: LabLayout): Promise<void> {
  const report = readReport(lab);
  if (report !== undefined && isAlive(report.supervisor)) return;
  const log = openSync(join(lab.logsDir, 'supervisor.log'), 'a', 0o640);
  const [file = '', ...args] = [...cliCommand(), 'lab', 'supervise', '--dir', lab.dir];
  const child = spawn(file, args, { detached: true, cwd: '/', stdio: ['ignore', log, log] });
  closeSync(log);
  const id = child.pid === undefined ? undefined : identifyProcess(child.pid);
  child.unref();
  await waitFor('the supervisor', () => (readReport(lab)?.supervisor.pid ?? 0) === id?.pid, {
    failed: () =>
      id !== undefined && isAlive(id) ? undefined : `it ended: ${lastLines(join(lab.logsDir, 'supervisor.log'))}`,
  });
}

/** A process that keeps ending will not come up by waiting. */
const maxRestarts = 5;

function supervisorFailure(lab: LabLayout): string | undefined {
  const report = readReport(lab);
  if (report === undefined) return undefined;
  if (!isAlive(report.supervisor)) return `the supervisor ended; see ${join(lab.logsDir, 'supervisor.log')}`;
  const broken = report.processes.find(({ process, restarts }) => process === undefined && restarts >= maxRestarts);
  if (broken === undefined) return undefined;
  const log = join(lab.logsDir, `${broken.name}.log`);
  return `${broken.name} ended ${broken.restarts} times (${broken.lastExit ?? 'unknown'}), see ${log}: ${lastLines(log)}`;
}

function lastLines(file: string): string {
  if (!existsSync(file)) return 'no log';
  return readFileSync(file, 'utf8').trim().split('\n').slice(-3).join(' | ');
}

interface NodeLike extends KubeObject {
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly lastHeartbeatTime?: string;
    }[];
  };
}

async function nodeReady(client: KubeClient, name: string): Promise<boolean> {
  const node = await client.find<NodeLike>(nodes, { name });
  return node?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
}

function accepts(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(socketPath);
    socket.on('connect', () => resolve((socket.destroy(), true)));
    socket.on('error', () => resolve(false));
  });
}

async function answers(url: string): Promise<boolean> {
  return (await fetch(url)).ok;
}

async function newState(options: LabUpOptions): Promise<LabState> {
  return {
    id: randomBytes(3).toString('hex'),
    dir: options.dir,
    nodes: options.nodes,
    link: options.link,
    policyEnforcement: options.policyEnforcement,
    apiHost: options.apiHost,
    apiPort: options.apiPort === 0 ? await freePort() : options.apiPort,
    webhookPort: await freePort(),
    healthPort: await freePort(),
    createdAt: new Date().toISOString(),
    path: options.path,
  };
}

function checkNodes(count: number): void {
  if (Number.isInteger(count) && count >= 1 && count <= maxNodes) return;
  throw new SluiceError({
    code: 'invalid_argument',
    operation: 'start',
    object: 'lab',
    what: `--nodes ${count} is not between 1 and ${maxNodes}`,
  });
}

function checkSame(existing: LabState, options: LabUpOptions): void {
  const modeOf = (one: { readonly policyEnforcement?: EnforcementMode | undefined }): EnforcementMode =>
    one.policyEnforcement ?? 'default';
  const same = existing.nodes === options.nodes && existing.link === options.link;
  if (same && modeOf(existing) === modeOf(options)) return;
  throw new SluiceError({
    code: 'lab_conflict',
    operation: 'start',
    object: `lab in ${options.dir}`,
    what: `one with ${existing.nodes} nodes on ${existing.link} is there (policy enforcement: ${modeOf(existing)})`,
    remedy: 'sluice lab down first, or give another --dir',
  });
}

/** Takes the failed lab down but keeps its logs, and says where. */
async function undo(options: LabUpOptions, error: unknown): Promise<SluiceError> {
  const state = readLabState(options.dir);
  let kept = '';
  if (state !== undefined) {
    const { logsDir } = labLayout(state);
    if (existsSync(logsDir)) {
      const copy = `${options.dir}.failed-logs`;
      rmSync(copy, { recursive: true, force: true });
      cpSync(logsDir, copy, { recursive: true });
      kept = `; its logs are in ${copy}`;
    }
  }
  await labDown(options).catch((undoError: unknown) =>
    options.onProgress(`taking the failed lab down failed: ${String(undoError)}`),
  );
  return new SluiceError({
    code: 'lab_failed',
    operation: 'start',
    object: `lab in ${options.dir}`,
    what: `it did not come up${kept}`,
    cause: error,
  });
}

/** One `lab up` per directory at a time. */
function lockLab(dir: string): Disposable {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const file = join(dir, 'lock');
  const holder = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as ProcessId) : undefined;
  if (holder !== undefined && holder.pid !== process.pid && isAlive(holder)) {
    throw new SluiceError({
      code: 'lab_conflict',
      operation: 'start',
      object: `lab in ${dir}`,
      what: `process ${holder.pid} is starting it`,
      remedy: 'wait for it, or end it',
    });
  }
  writeFileAtomically(file, JSON.stringify(identifyProcess(process.pid)));
  return { [Symbol.dispose]: () => rmSync(file, { force: true }) };
}
