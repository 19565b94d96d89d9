/**
 * The device whose virtual function (VF) a pod's interface is, for `matchMasterSubnet`. sriov-cni moves the VF into the pod
 * before it asks for addresses; the PCI device stays the node's, and leads to its physical function (PF):
 * Documentation/ABI/testing/sysfs-bus-pci, `physfn`.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CniRequest } from '../api/cni.ts';
import { SluiceError } from '../core/error.ts';
import type { PhysicalFunction } from '../ipam/pool-filter.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';

export type VirtualFunction = Pick<CniRequest, 'netns' | 'ifName' | 'config'>;

const pciAddress = /^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i;
/** phys_port_name of what stands for a VF or a subfunction beside its PF in switchdev mode (Documentation/networking/switchdev). */
const representorPort = /^(c\d+)?pf\d+(vf|sf)\d+$/;

/** Called in the node's namespace. `sysfs` is that of the namespace too, as a process with hostNetwork has it. */
export function physicalFunctionOf(vf: VirtualFunction, sysfs = '/sys'): PhysicalFunction {
  const device = deviceOf(vf);
  if (!pciAddress.test(device)) throw notFound(vf, `its device ${device} is no PCI device`);
  const dir = join(sysfs, 'bus/pci/devices', device, 'physfn/net');
  if (!existsSync(dir)) throw notFound(vf, `its device ${device} is no virtual function: it has no ${dir}`);
  using host = RtNetlink.open();
  for (const name of readdirSync(dir).sort()) {
    const link = isRepresentor(join(dir, name)) ? undefined : host.linkByName(name);
    if (link === undefined) continue;
    // A port of a bond or a bridge has its addresses there.
    const owners = [link.ifindex, ...(link.masterIfindex === undefined ? [] : [link.masterIfindex])];
    const addresses = owners.flatMap((ifindex) => host.addresses(ifindex).map(({ address }) => address));
    return { name, addresses };
  }
  throw notFound(vf, `the physical function of ${device} has no interface on the node`);
}

/** Multus passes the id of a device that a resource stands for; else the kernel knows the interface's device. */
function deviceOf(vf: VirtualFunction): string {
  const { netns, ifName, config } = vf;
  const named = config['deviceID'];
  if (typeof named === 'string' && named !== '') return named;
  if (netns === undefined) throw notFound(vf, 'the call names neither a deviceID nor a network namespace');
  using pod = RtNetlink.open(netns);
  const link = pod.linkByName(ifName);
  if (link === undefined) throw notFound(vf, `there is no ${ifName} in ${netns}`);
  if (link.parentDevice !== undefined) return link.parentDevice;
  throw notFound(vf, 'the kernel names no device of it: it is a virtual interface, or Linux is older than 5.14');
}

function isRepresentor(dir: string): boolean {
  try {
    return representorPort.test(readFileSync(join(dir, 'phys_port_name'), 'utf8').trim());
  } catch {
    return false; // EOPNOTSUPP: the driver has no such names, and no representors
  }
}

function notFound({ ifName, config }: VirtualFunction, what: string): SluiceError {
  return new SluiceError({
    code: 'not_found',
    operation: 'find the physical function (match_master_subnet) of',
    object: config.name === '' ? ifName : `${ifName} of network ${config.name}`,
    what,
    remedy:
      'use matchMasterSubnet with virtual functions of SR-IOV only, with k8s.v1.cni.cncf.io/resourceName on the attachment; ' +
      'or leave it out, and keep pools to nodes with nodeName or nodeAffinity',
  });
}
