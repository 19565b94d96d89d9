/** What a node must offer before an agent can work on it: tried, not read off a version, wherever that is possible. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { formatErrorChain } from '../core/error.ts';
import type { PreflightFinding } from '../core/preflight-finding.ts';
import { Datapath } from '../datapath/datapath.ts';
import { probeShapers } from '../datapath/shaper-support.ts';
import { haveTcx } from '../kernel/index.ts';
import { kernelHasLink } from '../kernel/link-support.ts';
import { ensureBpffs, isOnBpffs, listMounts, unmount } from '../kernel/mount.ts';

export interface NodePreflightOptions {
  readonly bpffsDir: string;
  readonly cniBinDir: string;
  readonly cniConfDir: string;
  readonly uid: number | undefined;
}

export function preflightNode(options: NodePreflightOptions): PreflightFinding[] {
  const files = [...cniExecutables(options.cniBinDir), ...cniConfiguration(options.cniConfDir)];
  if (options.uid !== 0) {
    const what = 'not root: the kernel could not be asked';
    return [{ check: 'kernel', state: 'problem', what, remedy: 'run it as root, on the node' }, ...files];
  }
  return [...programs(), hooks(), sockets(), ...links(), ...shaping(), bpffs(options.bpffsDir), ...files];
}

/** The agent's own programs and maps, loaded in a place of their own and let go. */
function programs(): PreflightFinding[] {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-preflight-'));
  try {
    ensureBpffs(dir);
    Datapath.open({ bpffsDir: join(dir, 'sluice') }).close();
    return [{ check: 'kernel', state: 'ok', what: `Linux ${release()} takes the programs and maps` }];
  } catch (error) {
    const remedy = 'Linux 5.10 or newer with BPF, BTF and the ring buffer: docs/reference/kernels.md';
    return [{ check: 'kernel', state: 'problem', what: `Linux ${release()}: ${formatErrorChain(error)}`, remedy }];
  } finally {
    if (isOnBpffs(dir)) unmount(dir, { lazy: true });
    rmSync(dir, { recursive: true, force: true });
  }
}

function hooks(): PreflightFinding {
  if (haveTcx()) return { check: 'hooks', state: 'ok', what: 'tcx links, which nobody in a pod can remove' };
  const what = 'no tcx links: a process with CAP_NET_ADMIN in a pod can take its filters off for milliseconds';
  return { check: 'hooks', state: 'warning', what, remedy: 'Linux 6.6 or newer' };
}

/** What keeps pods from sending past the hooks is on their cgroups (src/datapath/socket-guard.ts). */
function sockets(): PreflightFinding {
  const types = new Set(listMounts().map(({ fsType }) => fsType));
  if (types.has('cgroup2') && !types.has('cgroup'))
    return { check: 'sockets', state: 'ok', what: 'cgroup version 2: no socket in a pod sends past the hooks' };
  const what = 'cgroup version 1: a container with CAP_NET_RAW can send past policy (PACKET_QDISC_BYPASS, AF_XDP)';
  const remedy = 'cgroup version 2 alone (systemd.unified_cgroup_hierarchy=1), or drop: [NET_RAW] in the pods';
  return { check: 'sockets', state: 'warning', what, remedy };
}

function links(): PreflightFinding[] {
  const missing = (['ipvlan', 'macvlan'] as const).filter((kind) => !kernelHasLink(kind));
  if (missing.length === 0) return [{ check: 'links', state: 'ok', what: 'ipvlan and macvlan' }];
  return missing.map((kind) => ({
    ...{ check: 'links', state: 'warning', what: `the kernel makes no ${kind} interfaces` },
    remedy: `modprobe ${kind}, where pods are to have them`,
  }));
}

function shaping(): PreflightFinding[] {
  const { egress, ingress, shortfalls } = probeShapers();
  if (shortfalls.length === 0)
    return [{ check: 'bandwidth', state: 'ok', what: `limits are made with ${egress[0] ?? ''}` }];
  const state = egress.length === 0 || ingress.length === 0 ? 'problem' : 'warning';
  return shortfalls.map((what) => ({ check: 'bandwidth', state, what, remedy: 'docs/reference/kernels.md' }));
}

function bpffs(dir: string): PreflightFinding {
  if (isOnBpffs(dir) || isOnBpffs(dirname(dir))) return { check: 'bpffs', state: 'ok', what: `${dir} is on a bpffs` };
  const what = `${dir} is on no bpffs: the agent mounts one; in a container it ends with the container`;
  return { check: 'bpffs', state: 'warning', what, remedy: 'mount -t bpf bpf /sys/fs/bpf, on the host' };
}

const ownExecutables = ['sluice', 'cilium-cni', 'spiderpool', 'coordinator', 'ifacer'];

/** Only ours asks for this variable. */
const ownMark = 'SLUICE_CNI_SOCKET';

function cniExecutables(dir: string): PreflightFinding[] {
  const check = 'cni executables';
  if (!existsSync(dir)) {
    const remedy = 'install the CNI plugins, or name the directory with --cni-bin-dir';
    return [{ check, state: 'problem', what: `there is no ${dir}`, remedy }];
  }
  const missing = ownExecutables.filter((name) => !existsSync(join(dir, name)));
  const foreign = ownExecutables.filter((name) => existsSync(join(dir, name)) && !isOurs(join(dir, name)));
  const findings: PreflightFinding[] = foreign.map((name) => ({
    ...{ check, state: 'problem', what: `${join(dir, name)} is another project’s` },
    remedy:
      name === 'cilium-cni'
        ? 'leave it, and write {"type":"sluice"} in chainCNIJsonData instead of cilium-cni'
        : 'uninstall the other project first, or keep its executable and give the agent --spider-socket',
  }));
  if (missing.length > 0)
    findings.push({
      ...{ check, state: 'problem', what: `not in ${dir}: ${missing.join(', ')}` },
      remedy: 'copy what make -C shim builds (shim/build) there',
    });
  if (!['ipvlan', 'macvlan'].some((name) => existsSync(join(dir, name))))
    findings.push({
      ...{ check, state: 'warning', what: `neither ipvlan nor macvlan is in ${dir}` },
      remedy: 'install the reference CNI plugins (containernetworking-plugins)',
    });
  return findings.length > 0 ? findings : [{ check, state: 'ok', what: `all are in ${dir}` }];
}

function isOurs(file: string): boolean {
  return readFileSync(file).includes(ownMark);
}

function cniConfiguration(dir: string): PreflightFinding[] {
  const check = 'cni configuration';
  const files = existsSync(dir) ? readdirSync(dir).filter((file) => /\.(conf|conflist|json)$/.test(file)) : [];
  if (files.length === 0) {
    const what = `no configuration in ${dir}: the cluster has no network yet`;
    return [{ check, state: 'problem', what, remedy: 'install the cluster’s network and Multus first' }];
  }
  if (files.some((file) => file.includes('multus')))
    return [{ check, state: 'ok', what: `Multus is configured in ${dir}` }];
  const remedy = 'install Multus: it calls the attachments that Sluice makes';
  return [{ check, state: 'warning', what: `no Multus among ${files.sort().join(', ')}`, remedy }];
}
