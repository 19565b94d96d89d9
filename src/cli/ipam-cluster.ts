/** Whom the address commands ask: the API server for what is written, the agents for what is on the interfaces. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Option, type Command } from 'commander';
import type { NodeAddresses } from '../api/agent-api.ts';
import type { Node, Pod } from '../api/kubernetes.ts';
import {
  nodes,
  pods,
  spiderEndpoints,
  spiderIPPools,
  spiderReservedIPs,
  type GroupVersionResource,
} from '../api/resources.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { IpRange } from '../core/ip-range.ts';
import type { EndpointClaim } from '../ipam/audit.ts';
import { parseRanges } from '../ipam/pool-addresses.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import type { LabState } from '../lab/lifecycle/state.ts';
import { askAgent, unixAgent, type AgentTransport } from './agent-client.ts';
import { defaultAgentSocket, labAgents } from './agents.ts';
import { defaultLabDir } from './lab-dir.ts';

export interface IpamFlags {
  readonly kubeconfig?: string;
  readonly lab?: string;
  readonly agent?: readonly string[];
  readonly json: boolean;
}

/** The options that every address command has. */
export function withCluster(command: Command): Command {
  return command
    .addOption(
      new Option('--kubeconfig <file>', 'the cluster (default: $KUBECONFIG, the service account, ~/.kube/config)'),
    )
    .addOption(
      new Option('--lab <directory>', 'this lab (default: the default lab, when no kubeconfig is found)').conflicts(
        'kubeconfig',
      ),
    )
    .addOption(
      new Option(
        '--agent <socket...>',
        `sockets of nodes’ agents (default: every node’s of a lab, else ${defaultAgentSocket})`,
      ),
    )
    .option('--json', 'for programs', false);
}

export interface IpamCluster extends Disposable {
  readonly client: KubeClient;
  readonly agents: readonly AgentTransport[];
}

export async function openCluster(flags: IpamFlags, env: NodeJS.ProcessEnv): Promise<IpamCluster> {
  const [{ createKubeClient }, { loadKubeConfig }] = await Promise.all([
    import('../kube/client.ts'),
    import('../kube/config.ts'),
  ]);
  const { path, lab } = await findCluster(flags, env);
  const agents = await findAgents(flags, lab);
  const client = createKubeClient(loadKubeConfig({ path }), { userAgent: 'sluice-cli' });
  return { client, agents, [Symbol.dispose]: () => client.close() };
}

interface FoundCluster {
  /** Of a kubeconfig; absent: the service account, or the user's own. */
  readonly path?: string;
  readonly lab?: LabState;
}

async function findCluster({ kubeconfig, lab }: IpamFlags, env: NodeJS.ProcessEnv): Promise<FoundCluster> {
  const { mustLabState, readLabState } = await import('../lab/lifecycle/state.ts');
  const { labLayout } = await import('../lab/layout.ts');
  const inLab = (state: LabState): FoundCluster => ({ path: labLayout(state).kubeconfig, lab: state });
  if (lab !== undefined) return inLab(mustLabState(resolve(lab)));
  // A lab's own kubeconfig, as its users export it, names the lab.
  const path = kubeconfig ?? (env['KUBECONFIG'] || undefined);
  const named = path === undefined ? undefined : readLabState(dirname(resolve(path)));
  if (named !== undefined && labLayout(named).kubeconfig === resolve(path ?? '')) return inLab(named);
  if (path !== undefined) return { path };
  const own = [`${env['HOME'] ?? ''}/.kube/config`, '/var/run/secrets/kubernetes.io/serviceaccount/token'];
  if (own.some((file) => existsSync(file))) return {};
  const state = readLabState(defaultLabDir(env));
  if (state !== undefined) return inLab(state);
  throw new SluiceError({
    ...{ code: 'not_found', operation: 'find', object: 'a cluster' },
    what: `there is no kubeconfig and no lab in ${defaultLabDir(env)}`,
    remedy: 'name --kubeconfig FILE or --lab DIR',
  });
}

async function findAgents({ agent }: IpamFlags, lab: LabState | undefined): Promise<AgentTransport[]> {
  if (agent !== undefined) return agent.map((socket) => unixAgent(socket, resolve(socket)));
  if (lab !== undefined) return labAgents(lab);
  return existsSync(defaultAgentSocket) ? [unixAgent(defaultAgentSocket, defaultAgentSocket)] : [];
}

/** What is written in the API. */
export interface WrittenAddresses {
  readonly pools: readonly SpiderIPPool[];
  readonly reserved: readonly IpRange[];
  readonly pods: readonly Pod[];
  readonly endpoints: readonly EndpointClaim[];
  readonly nodes: readonly string[];
}

export async function readPools(client: KubeClient): Promise<Pick<WrittenAddresses, 'pools' | 'reserved'>> {
  const [pools, reserved] = await Promise.all([
    client.listAll(spiderIPPools),
    listIfServed<SpiderReservedIP>(client, spiderReservedIPs),
  ]);
  const inForce = reserved.filter(({ metadata }) => !metadata.deletionTimestamp);
  const items = pools.items as readonly SpiderIPPool[];
  return {
    pools: [...items].sort((a, b) => ((a.metadata.name ?? '') < (b.metadata.name ?? '') ? -1 : 1)),
    reserved: inForce.flatMap(({ spec }) => parseRanges(spec.ips).ranges),
  };
}

export async function readWritten(client: KubeClient): Promise<WrittenAddresses> {
  const [pools, podList, endpoints, nodeList] = await Promise.all([
    readPools(client),
    client.listAll<Pod>(pods),
    listIfServed<SpiderEndpoint>(client, spiderEndpoints),
    client.listAll<Node>(nodes),
  ]);
  return {
    ...pools,
    pods: podList.items,
    endpoints: endpoints.map(claimOf),
    nodes: nodeList.items.map(({ metadata }) => metadata?.name ?? ''),
  };
}

/** A cluster may do without a resource: its definition is not installed. */
async function listIfServed<T>(client: KubeClient, gvr: GroupVersionResource): Promise<readonly T[]> {
  return ((await unlessNotFound(client.listAll(gvr)))?.items ?? []) as readonly T[];
}

/** Kinds whose pods come back under the same name and get the same addresses. */
const keepingOwners: readonly string[] = ['StatefulSet', 'VirtualMachineInstance'];

export function claimOf({ metadata, status }: SpiderEndpoint): EndpointClaim {
  const interfaces = status?.current.ips ?? [];
  return {
    namespace: metadata.namespace ?? '',
    name: metadata.name ?? '',
    uid: status?.current.uid ?? '',
    kept: keepingOwners.includes(status?.ownerControllerType ?? ''),
    addresses: interfaces.flatMap(({ interface: name, ipv4, ipv6, ipv4Pool, ipv6Pool }) => [
      ...claimedAddress(name, ipv4, ipv4Pool),
      ...claimedAddress(name, ipv6, ipv6Pool),
    ]),
  };
}

function claimedAddress(
  name: string,
  cidr: string | undefined,
  pool: string | undefined,
): EndpointClaim['addresses'][number][] {
  if (cidr === undefined || cidr === '') return [];
  return [{ interface: name, address: cidr.split('/')[0] ?? cidr, pool: pool ?? '' }];
}

/** What is on the interfaces, and whose interfaces nobody could look at. */
export interface SeenAddresses {
  readonly nodes: readonly NodeAddresses[];
  readonly unanswered: readonly { readonly node: string; readonly why: string }[];
}

export async function askNodes({ agents }: IpamCluster, nodeNames: readonly string[]): Promise<SeenAddresses> {
  const settled = await Promise.allSettled(
    agents.map((agent) => askAgent<NodeAddresses>(agent, { path: '/v1/addresses' })),
  );
  const answers = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const failures = settled.flatMap((one, index) =>
    one.status === 'rejected' ? [{ node: agents[index]?.name ?? '', why: formatErrorChain(one.reason) }] : [],
  );
  const told = new Set([...answers, ...failures].map(({ node }) => node));
  const notAsked = nodeNames
    .filter((node) => !told.has(node))
    .map((node) => ({ node, why: 'its agent was not asked: run this on the node, or name its socket with --agent' }));
  return { nodes: answers, unanswered: [...failures, ...notAsked] };
}
