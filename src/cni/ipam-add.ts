import { z } from 'zod';
import type { CniRequest, CniResult } from '../api/cni.ts';
import { spiderAnnotations, spiderErrors } from '../api/spider.ts';
import { SluiceError } from '../core/error.ts';
import { parseIp, parsePrefix, prefixContainsIp, type IpFamily } from '../core/ip.ts';
import { attachmentOf, isPodAlive, type IpamPod } from '../ipam/pod.ts';
import type { AllocationKey } from '../ipam/pool-book.ts';
import type { PoolUser } from '../ipam/pool-filter.ts';
import { parseAnnotation, selectPools, type Selection } from '../ipam/pool-selection.ts';
import { allocateFamily, candidatePools, type PoolAllocation } from './ipam-allocate.ts';
import { ipamResult, type ExtraRoute } from './ipam-result.ts';
import { findPod, podError, requirePodReference, type IpamState } from './ipam-state.ts';

/** ADD: an address per family that the pod asks for, or none at all. */

const confSchema = z.looseObject({
  default_ipv4_ippool: z.array(z.string()).optional(),
  default_ipv6_ippool: z.array(z.string()).optional(),
  clean_gateway: z.boolean().optional(),
});

const routesSchema = z.array(z.object({ dst: z.string(), gw: z.string() }));

export async function addAddresses(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<CniResult> {
  const reference = requirePodReference(request);
  const pod = await findPod(state, reference, signal);
  if (!isPodAlive(pod)) {
    const { namespace, name } = reference;
    throw podError(reference, `dead Pod ${namespace}/${name}, we cannot allocate IP addresees to it`);
  }
  const key = {
    podUid: pod.metadata?.uid ?? '',
    pod: `${reference.namespace}/${reference.name}`,
    interface: request.ifName,
  };
  // Remembered first: a DEL of an older sandbox that comes meanwhile must not take the address away.
  state.remember({
    containerId: request.containerId,
    interface: key.interface,
    podUid: key.podUid,
    network: request.config.name,
  });
  const { families, cleanGateway } = await planFamilies(state, request, pod, signal);
  const allocations = await allocateAll(state, key, families, signal);
  return ipamResult(request, allocations, { cleanGateway, routes: podRoutes(pod, allocations, state) });
}

interface FamilyPlan {
  readonly user: PoolUser;
  readonly candidates: Awaited<ReturnType<typeof candidatePools>>;
}

interface AddPlan {
  readonly families: readonly FamilyPlan[];
  readonly cleanGateway: boolean;
}

async function planFamilies(
  state: IpamState,
  request: CniRequest,
  pod: IpamPod,
  signal: AbortSignal,
): Promise<AddPlan> {
  const conf = readConf(request);
  const namespaceName = pod.metadata?.namespace ?? 'default';
  const namespace = await state.deps.readNamespace(namespaceName, signal);
  const selection = selectPools({
    podAnnotations: pod.metadata?.annotations,
    namespaceAnnotations: namespace?.annotations,
    confIpv4: conf.default_ipv4_ippool,
    confIpv6: conf.default_ipv6_ippool,
    interface: request.ifName,
  });
  const node = await state.deps.readNode(state.deps.nodeName, signal);
  const families: FamilyPlan[] = [];
  for (const family of [4, 6] as const) {
    const candidates = await candidatePools(state.deps, state.writer, selection, family, signal);
    const isAsked = selection === undefined ? candidates.length > 0 : asksFor(selection, family);
    const user: PoolUser = {
      family,
      interface: request.ifName,
      podLabels: pod.metadata?.labels ?? {},
      namespace: namespaceName,
      namespaceLabels: namespace?.labels ?? {},
      node: state.deps.nodeName,
      nodeLabels: node?.labels ?? {},
      attachment: () => attachmentOf(pod, request.ifName, attachmentDefaults(state)),
      attachmentNamespace: state.deps.attachmentNamespace,
    };
    if (isAsked) families.push({ user, candidates });
  }
  if (families.length === 0) throw nothingSpecified(pod);
  return { families, cleanGateway: conf.clean_gateway === true || selection?.cleanGateway === true };
}

function asksFor(selection: Selection, family: IpFamily): boolean {
  return (family === 4 ? selection.ipv4 : selection.ipv6) !== undefined;
}

function attachmentDefaults({ deps }: IpamState): { namespace: string; clusterNetwork: string | undefined } {
  return { namespace: deps.attachmentNamespace, clusterNetwork: deps.clusterNetwork };
}

function readConf(request: CniRequest): z.infer<typeof confSchema> {
  const parsed = confSchema.safeParse(request.config.ipam ?? {});
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map(({ path, message }) => `ipam.${path.join('.')} ${message}`).join('; ');
  throw new SluiceError({
    code: 'invalid_argument',
    operation: 'read the CNI configuration of',
    object: request.config.name,
    what: `${spiderErrors.wrongInput}, ${issues}`,
    remedy: 'correct spec.config of the NetworkAttachmentDefinition',
  });
}

/** Both families at once. When one fails, what the other newly took is given back. */
async function allocateAll(
  state: IpamState,
  key: AllocationKey,
  families: readonly FamilyPlan[],
  signal: AbortSignal,
): Promise<PoolAllocation[]> {
  const attempts = families.map((family) => allocateFamily(state.deps, state.writer, { key, ...family }, signal));
  const settled = await Promise.allSettled(attempts);
  const allocations = settled.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const failure = settled.find((outcome) => outcome.status === 'rejected');
  if (failure === undefined) return allocations;
  await Promise.all(allocations.filter(({ isNew }) => isNew).map((allocation) => giveBack(state, key, allocation)));
  throw failure.reason;
}

async function giveBack(state: IpamState, key: AllocationKey, { pool }: PoolAllocation): Promise<void> {
  const poolName = pool.metadata.name ?? '';
  try {
    await state.writer.run(poolName, (book) =>
      book.release((record) => record.podUid === key.podUid && record.interface === key.interface),
    );
  } catch (error) {
    // The same pod gets the same address when it is tried again; and when it goes, its DEL returns it.
    state.deps.log.warn({ pool: poolName, pod: key.pod, error }, 'could not give an address back after a failed ADD');
  }
}

function podRoutes(pod: IpamPod, allocations: readonly PoolAllocation[], { deps }: IpamState): ExtraRoute[] {
  const routes = parseAnnotation('Pod', spiderAnnotations.routes, pod.metadata?.annotations, routesSchema) ?? [];
  return routes.filter((route) => {
    const gateway = parseIp(route.gw);
    const isOurs = allocations.some(({ pool }) => {
      const subnet = parsePrefix(pool.spec.subnet);
      return subnet !== undefined && gateway !== undefined && prefixContainsIp(subnet, gateway);
    });
    if (!isOurs) deps.log.warn({ pod: pod.metadata?.name, route }, 'no interface for this route of the pod here');
    return isOurs;
  });
}

function nothingSpecified(pod: IpamPod): SluiceError {
  return new SluiceError({
    code: 'ipam_no_pool',
    operation: 'select pools for',
    object: `Pod ${pod.metadata?.namespace ?? ''}/${pod.metadata?.name ?? ''}`,
    what: `${spiderErrors.noPool}, no pool selection rules of any type are specified`,
    remedy:
      `name pools in the SpiderMultusConfig (ippools), in the pod annotation ${spiderAnnotations.ippool}, ` +
      'or give a SpiderIPPool spec.default: true',
  });
}
