/**
 * Finds the network namespace of a pod that runs already, by what no other namespace of the node has: the pod's
 * addresses, all on one interface. Runtimes name namespaces below /run/netns or keep a process in them; both are searched.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { formatIp } from '../core/ip.ts';
import { Netns, netnsInode, RtNetlink } from '../kernel/index.ts';

const namedDir = '/run/netns';
const procDir = '/proc';

export interface PodInterface {
  /** Path of the namespace. */
  readonly netns: string;
  /** Decimal. */
  readonly netnsInode: string;
  readonly interfaceName: string;
  /** `macvlan`, `veth` …; undefined for hardware, a VF among it. */
  readonly kind: string | undefined;
  /** Every interface of the namespace. */
  readonly allInterfaces: readonly { readonly name: string; readonly kind: string | undefined }[];
}

/** Paths of all network namespaces of the node but the agent's own: one path each, a name if there is one. */
export function listNetns(): Map<string, string> {
  const paths = new Map<string, string>();
  const note = (path: string): void => {
    const inode = inodeOf(path);
    if (inode !== undefined && !paths.has(inode)) paths.set(inode, path);
  };
  for (const name of list(namedDir)) note(join(namedDir, name));
  for (const name of list(procDir)) if (/^[0-9]+$/.test(name)) note(join(procDir, name, 'ns/net'));
  paths.delete(inodeOf('/proc/self/ns/net') ?? '');
  return paths;
}

/** Every interface of the node's pods that has all of these addresses; more than one is for the caller to refuse. */
export function findPodInterfaces(ips: readonly string[], namespaces = listNetns()): PodInterface[] {
  return [...namespaces].flatMap(([inode, path]) => {
    try {
      return matchesIn(path, inode, ips);
    } catch {
      return []; // it ended meanwhile
    }
  });
}

function matchesIn(path: string, inode: string, ips: readonly string[]): PodInterface[] {
  using netns = Netns.openPath(path);
  if (String(netns.inode) !== inode) return [];
  using netlink = RtNetlink.open(netns);
  const byInterface = new Map<number, Set<string>>();
  for (const { ifindex, address } of netlink.addresses()) {
    byInterface.set(ifindex, (byInterface.get(ifindex) ?? new Set()).add(formatIp(address)));
  }
  const matching = [...byInterface].filter(([, addresses]) => ips.length > 0 && ips.every((ip) => addresses.has(ip)));
  if (matching.length === 0) return [];
  const links = netlink.links();
  const allInterfaces = links.map(({ name, kind }) => ({ name, kind }));
  return matching.flatMap(([ifindex]) => {
    const link = links.find((candidate) => candidate.ifindex === ifindex);
    if (link === undefined) return [];
    return [{ netns: path, netnsInode: inode, interfaceName: link.name, kind: link.kind, allInterfaces }];
  });
}

export interface NodeNamespace {
  readonly path: string;
  /** Decimal. */
  readonly inode: string;
  readonly interfaces: readonly { readonly name: string; readonly addresses: readonly string[] }[];
}

/**
 * The namespaces of this node's pods, with what is on their interfaces: those with a link whose parent or peer is in the
 * agent's own namespace, and those of `known` inodes (a VF has no parent). Others on the machine are not this node's.
 */
export async function nodeNamespaces(known: ReadonlySet<string>): Promise<NodeNamespace[]> {
  const found: NodeNamespace[] = [];
  for (const [inode, path] of listNetns()) {
    // Hundreds of namespaces take a while; CNI calls go between.
    await new Promise((resolve) => setImmediate(resolve));
    try {
      const namespace = namespaceOfNode(path, inode, known.has(inode));
      if (namespace !== undefined) found.push(namespace);
    } catch {
      // it ended meanwhile
    }
  }
  return found;
}

function namespaceOfNode(path: string, inode: string, isKnown: boolean): NodeNamespace | undefined {
  using netns = Netns.openPath(path);
  if (String(netns.inode) !== inode) return undefined;
  using netlink = RtNetlink.open(netns);
  const links = netlink.links();
  if (!isKnown) {
    using own = Netns.current();
    const ownId = netlink.netnsId(own);
    if (ownId === undefined || !links.some(({ parentNetnsId }) => parentNetnsId === ownId)) return undefined;
  }
  const addresses = netlink.addresses();
  const interfaces = links.flatMap(({ name, ifindex }) => {
    const own = addresses.filter((one) => one.ifindex === ifindex && one.scope === RT_SCOPE_UNIVERSE);
    return own.length === 0 ? [] : [{ name, addresses: own.map(({ address }) => formatIp(address)) }];
  });
  return { path, inode, interfaces };
}

/** Global addresses; link-local ones and those of the loopback are nobody's allocation. */
const RT_SCOPE_UNIVERSE = 0;

function inodeOf(path: string): string | undefined {
  try {
    const inode = netnsInode(path);
    return inode === undefined ? undefined : String(inode);
  } catch {
    return undefined; // EACCES or a process that ended
  }
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
