/** The processes of a lab. Pure. */
import { labDefaultNetwork } from '../node/attachment.ts';
import { nodeNames, nodePaths, type LabLayout } from '../layout.ts';
import type { LabState } from './state.ts';

export interface ProcessSpec {
  readonly name: string;
  /** Arguments of the CLI. */
  readonly args: readonly string[];
  /** Path of the netns to start in; absent: the host's. */
  readonly netns?: string;
}

export const controlPlaneName = 'control-plane';

/** Started first; the others start when it serves. */
export function controlPlaneSpec(lab: LabLayout): ProcessSpec {
  return { name: controlPlaneName, args: ['lab', 'control-plane', '--dir', lab.dir] };
}

export function memberSpecs(lab: LabLayout, state: LabState): ProcessSpec[] {
  const controller: ProcessSpec = {
    name: 'controller',
    args: [
      'controller',
      ...['--kubeconfig', lab.controllerKubeconfig],
      ...['--webhook-port', String(state.webhookPort)],
      ...['--health-port', String(state.healthPort)],
      ...['--config', lab.confFile],
    ],
  };
  return [controller, ...nodeNames(state.nodes).flatMap((name) => nodeSpecs(lab, state, name))];
}

function nodeSpecs(lab: LabLayout, state: LabState, name: string): ProcessSpec[] {
  const node = nodePaths(lab, name);
  const agent = [
    'agent',
    ...['--kubeconfig', lab.agentKubeconfig],
    ...['--node-name', name],
    ...['--bpffs', `${node.bpffs}/sluice`],
    ...['--state-dir', node.agentStateDir],
    ...['--cni-socket', node.cniSocket],
    ...['--agent-socket', node.agentSocket],
    ...['--config', lab.confFile],
    ...['--policy-enforcement', state.policyEnforcement ?? 'default'],
    ...['--attachment-namespace', labDefaultNetwork.namespace],
    ...['--cluster-network', `${labDefaultNetwork.namespace}/${labDefaultNetwork.name}`],
  ];
  return [
    { name: `agent-${name}`, args: agent, netns: node.netns },
    { name: `kubelet-${name}`, args: ['lab', 'kubelet', '--dir', lab.dir, '--node', name], netns: node.netns },
  ];
}
