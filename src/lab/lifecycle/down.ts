/** Takes a lab down, whatever state it is in: what is there is removed, what is not is skipped. */
import { readdirSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Cgroup } from '../../kernel/cgroup.ts';
import { listMounts, unmount } from '../../kernel/mount.ts';
import { removeNamedNetns } from '../../kernel/netns.ts';
import { labLayout, netnsDir, netnsPrefix, type LabLayout } from '../layout.ts';
import { killCgroup } from '../teardown.ts';
import { stopLabVm } from '../vm/lab-vm.ts';
import { requireRoot } from './preflight.ts';
import { readLabState } from './state.ts';

export interface LabDownOptions {
  readonly dir: string;
  readonly uid: number | undefined;
  readonly onProgress: (line: string) => void;
}

/** False when there was no lab. */
export async function labDown(options: LabDownOptions): Promise<boolean> {
  const state = readLabState(options.dir);
  // A machine that was killed half way through its start has no state yet, but QEMU's pid file.
  stopLabVm(options.dir);
  if (state === undefined) return false;
  requireRoot(options.uid);
  const lab = labLayout(state);
  if (state.vm === undefined) await removeFromKernel(lab);
  removeFiles(lab);
  options.onProgress(`lab ${state.id} is gone`);
  return true;
}

async function removeFromKernel(lab: LabLayout): Promise<void> {
  // Processes first: they hold namespaces and would make things again.
  await killCgroup(Cgroup.named(lab.cgroup));
  for (const name of namesIn(netnsDir)) {
    if (name.startsWith(netnsPrefix(lab.id))) removeNamedNetns(join(netnsDir, name));
  }
  const inside = listMounts().filter(({ target }) => target.startsWith(`${lab.runDir}/`));
  for (const { target } of inside.reverse()) unmount(target, { lazy: true });
  // With the last bpffs go the pins, and with them the links and maps.
}

/** DIR itself goes only if nothing else is in it, and so do the directories we made above it. */
function removeFiles(lab: LabLayout): void {
  for (const path of [
    ...[
      lab.kubeconfig,
      lab.nodeKubeconfig,
      lab.agentKubeconfig,
      lab.controllerKubeconfig,
      lab.confFile,
      lab.processesFile,
      lab.cniBinDir,
      lab.logsDir,
      lab.apiDir,
      lab.controllerDir,
    ],
    ...[join(lab.dir, 'nodes'), join(lab.dir, 'control-plane.ready'), lab.lockFile],
  ]) {
    rmSync(path, { recursive: true, force: true });
  }
  rmSync(lab.runDir, { recursive: true, force: true });
  rmSync(lab.stateFile, { force: true });
  removeIfEmpty(lab.dir);
  if (dirname(lab.dir).endsWith('/sluice')) removeIfEmpty(dirname(lab.dir));
}

function removeIfEmpty(dir: string): void {
  try {
    rmdirSync(dir);
  } catch {
    // not ours alone, or gone already
  }
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
