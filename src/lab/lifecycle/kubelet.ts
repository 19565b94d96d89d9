/** A node's kubelet with what it must know from the lab's state. */
import type { Logger } from '../../core/log.ts';
import { loadKubeConfig } from '../../kube/config.ts';
import { labLayout, nodeNames, nodePaths } from '../layout.ts';
import { runKubelet } from '../node/kubelet.ts';
import { nodeAddresses } from '../underlay/underlay.ts';
import { mainPluginDir } from './preflight.ts';
import { mustLabState } from './state.ts';

export interface LabKubeletOptions {
  readonly dir: string;
  readonly node: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export async function runLabKubelet({ dir, node, log, signal }: LabKubeletOptions): Promise<void> {
  const state = mustLabState(dir);
  const lab = labLayout(state);
  const paths = nodePaths(lab, node);
  const addresses = nodeAddresses(nodeNames(state.nodes).indexOf(node));
  await runKubelet({
    labId: state.id,
    nodeName: node,
    nodeNetns: paths.netns,
    addresses: [addresses.v4, addresses.v6],
    kubeConfig: loadKubeConfig({ path: lab.nodeKubeconfig }),
    stateDir: paths.stateDir,
    runDir: paths.runDir,
    socketPath: paths.kubeletSocket,
    cniSocket: paths.cniSocket,
    cniBinDirs: [lab.cniBinDir, mainPluginDir],
    cgroup: paths.cgroup,
    path: state.path,
    log,
    signal,
  });
}
