/**
 * The API that Spiderpool's own CNI executables ask for addresses: HTTP over a unix socket, the paths and shapes of its
 * api/v1/agent/openapi.yaml. docs/reference/spiderpool-socket.md lists them. Failures are a JSON string, as there.
 */
import { text } from 'node:stream/consumers';
import fastify, { type FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { CniCommand, CniRequest, PluginHandler } from '../api/cni.ts';
import type { EndpointInterface, SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { ClusterCoordinatorConfig } from '../cni/coordinator-cluster.ts';
import type { InterfaceAddresses } from '../cni/ipam-add.ts';
import { releasePod } from '../cni/ipam-release-pod.ts';
import { routesOf } from '../cni/ipam-result.ts';
import type { IpamState } from '../cni/ipam-state.ts';
import { formatErrorChain } from '../core/error.ts';
import { addressText } from '../ipam/endpoint-record.ts';
import { agentLimits } from './limits.ts';
import type { PodTurns } from './pod-turns.ts';
import { probeRoute, runtimeRoutes } from './runtime-probes.ts';

export interface SpiderApiSources {
  readonly state: IpamState;
  /** ADD, with what the executables are told beyond a CNI result. */
  readonly add: (request: CniRequest, signal: AbortSignal) => Promise<InterfaceAddresses>;
  /** The address plugin, for DEL. */
  readonly plugin: PluginHandler;
  /** Shared with the plugin's own callers. */
  readonly inTurn: PodTurns;
  readonly coordinator: (
    pod: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ) => Promise<ClusterCoordinatorConfig>;
  /** Whether pods whose addresses conflict may return them (SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS). */
  readonly releaseConflictIps: boolean;
}

const pools = z
  .array(z.string())
  .nullish()
  .transform((names) => names ?? undefined);
const attachmentSchema = z.looseObject({
  containerID: z.string(),
  ifName: z.string(),
  netNamespace: z.string().nullish(),
  podNamespace: z.string(),
  podName: z.string(),
  podUID: z.string(),
});
const addSchema = attachmentSchema.extend({
  defaultIPv4IPPool: pools,
  defaultIPv6IPPool: pools,
  cleanGateway: z.boolean().default(false),
  matchMasterSubnet: z.boolean().default(false),
});
const podSchema = attachmentSchema.omit({ ifName: true }).extend({ isReleaseConflictIPs: z.boolean().default(false) });
const queryPod = z.object({ podNamespace: z.string().min(1), podName: z.string().min(1) });

/** Status codes that Spiderpool made up for a release that is not wanted. */
const statelessForbidden = 521;
const statefulForbidden = 522;

/** Built without a listener, so that tests can inject requests. */
export function buildSpiderApi(sources: SpiderApiSources): FastifyInstance {
  const app = fastify({ logger: false, forceCloseConnections: true, bodyLimit: agentLimits.apiRequestBytes });
  app.setErrorHandler((error, _, reply) => reply.code(500).send(JSON.stringify(formatErrorChain(error))));
  app.addHook('onSend', async (_, reply) => void reply.type('application/json'));
  addressRoutes(app, sources);
  app.get('/v1/workloadendpoint', async ({ query }, reply) => {
    const parsed = queryPod.safeParse(query);
    if (!parsed.success) return reply.code(400).send(JSON.stringify(z.prettifyError(parsed.error)));
    const { podNamespace, podName } = parsed.data;
    const endpoint = await sources.state.deps.endpoints.read(podNamespace, podName);
    return endpoint === undefined ? reply.code(404).send('""') : workloadEndpoint(endpoint);
  });
  app.get('/v1/coordinator/config', async ({ raw }) => {
    // A GET with a body: so it is there.
    const { podNamespace, podName } = queryPod.parse(JSON.parse((await text(raw)) || '{}'));
    return sources.coordinator({ namespace: podNamespace, name: podName }, deadline());
  });
  const { notReady } = sources.state.deps;
  runtimeRoutes(app, { notReady, notAlive: () => undefined });
  return app;
}

function addressRoutes(app: FastifyInstance, sources: SpiderApiSources): void {
  const { state, add, plugin, inTurn, releaseConflictIps } = sources;
  probeRoute(app, '/v1/ipam/healthy', state.deps.notReady);
  app.post('/v1/ipam/ip', async ({ body }) => {
    const args = addSchema.parse(body);
    const ipam = {
      type: 'spiderpool',
      default_ipv4_ippool: args.defaultIPv4IPPool,
      default_ipv6_ippool: args.defaultIPv6IPPool,
      clean_gateway: args.cleanGateway,
      match_master_subnet: args.matchMasterSubnet,
    };
    const request = cniRequest('ADD', args, ipam);
    const added = await inTurn(podKey(args), (signal) => add(request, signal));
    return addAnswer(args.ifName, added, probesLeft(state, request));
  });
  app.delete('/v1/ipam/ip', async ({ body }) => {
    const args = attachmentSchema.parse(body);
    await inTurn(podKey(args), (signal) => plugin(cniRequest('DEL', args, { type: 'spiderpool' }), signal));
    return {};
  });
  app.post('/v1/ipam/ips', () => ({}));
  app.delete('/v1/ipam/ips', async ({ body }, reply) => {
    const args = podSchema.parse(body);
    const { podNamespace: namespace, podName: name, podUID: uid, isReleaseConflictIPs: isConflict } = args;
    if (isConflict && !releaseConflictIps)
      return reply.code(statelessForbidden).send('"forbid releasing IPs for stateless workload"');
    const release = { namespace, name, uid, isConflict };
    const outcome = await inTurn(podKey(args), (signal) => releasePod(state, release, signal));
    if (outcome !== 'static') return {};
    return reply.code(statefulForbidden).send('"forbid releasing IPs for stateful workload "');
  });
}

function podKey({ podNamespace, podName }: Pick<z.infer<typeof attachmentSchema>, 'podNamespace' | 'podName'>): string {
  return `${podNamespace}/${podName}`;
}

function deadline(): AbortSignal {
  return AbortSignal.timeout(agentLimits.cniOperationMs);
}

function cniRequest(
  command: CniCommand,
  args: z.infer<typeof attachmentSchema>,
  ipam: NonNullable<CniRequest['config']['ipam']>,
): CniRequest {
  return {
    plugin: 'spiderpool',
    command,
    containerId: args.containerID,
    ifName: args.ifName,
    ...(args.netNamespace ? { netns: args.netNamespace } : {}),
    args: { K8S_POD_NAMESPACE: args.podNamespace, K8S_POD_NAME: args.podName, K8S_POD_UID: args.podUID },
    path: '',
    // The API does not say of which network the interface is.
    config: { cniVersion: '1.0.0', name: '', type: '', ipam },
  };
}

interface Probes {
  readonly conflicts: boolean;
  readonly gateways: boolean;
}

/**
 * What the executable shall ask the link itself: what is configured and the agent has not asked, for want of a namespace.
 * Never twice: on ipvlan the executable, which reads in the pod, gets no answer and would call every gateway unreachable.
 */
function probesLeft({ deps: { detection } }: IpamState, { netns }: CniRequest): Probes {
  return detection !== undefined && netns === undefined ? detection : { conflicts: false, gateways: false };
}

function addAnswer(nic: string, added: InterfaceAddresses, probes: Probes): object {
  const ips = added.allocations.map(({ address, pool }) => ({
    version: address.family,
    address: addressText(address, pool),
    nic,
    ipPool: pool.metadata.name ?? '',
    gateway: pool.spec.gateway ?? '',
    vlan: 0,
    enableGatewayDetection: probes.gateways && pool.spec.gateway !== undefined,
    enableIPConflictDetection: probes.conflicts,
  }));
  return { ips, routes: routesOf(added).map(({ dst, gw }) => ({ ifName: nic, dst, gw })), dns: {} };
}

function workloadEndpoint({ metadata, status }: SpiderEndpoint): object {
  const { uid = '', node = '', ips = [] } = status?.current ?? {};
  return {
    podNamespace: metadata.namespace ?? '',
    podName: metadata.name ?? '',
    podUID: uid,
    node,
    interfaces: ips.map((entry) => ({ ...interfaceOf(entry), routes: entry.routes ?? [] })),
  };
}

function interfaceOf({ routes: _, ...entry }: EndpointInterface): object {
  return entry;
}
