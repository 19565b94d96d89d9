import { z } from 'zod';
import type { CniRequest, CniResult } from '../api/cni.ts';
import { spiderAnnotations, spiderErrors } from '../api/spider.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { PoolRoute } from '../api/spiderippool.ts';
import { SluiceError } from '../core/error.ts';
import { compareIp, parseIp, parsePrefix, prefixContainsIp, type IpFamily } from '../core/ip.ts';
import {
  interfaceEntry,
  recordedAddresses,
  recordedOf,
  type EndpointOwner,
  type RecordedAddress,
} from '../ipam/endpoint-record.ts';
import { attachmentOf, interfaceIndex, isPodAlive, type IpamPod } from '../ipam/pod.ts';
import type { AllocationKey } from '../ipam/pool-book.ts';
import type { PoolUser } from '../ipam/pool-filter.ts';
import { parseAnnotation, selectPools, type Selection } from '../ipam/pool-selection.ts';
import { leaveOutDetection } from './address-settling.ts';
import { allocateFamily, candidatePools, type PoolAllocation } from './ipam-allocate.ts';
import { autoPoolSelection } from './ipam-auto-pool.ts';
import type { Ownership } from './ipam-owner.ts';
import { conflictError, findConflicts, requireGateways } from './ipam-detect.ts';
import { ipamResult } from './ipam-result.ts';
import { findPod, podError, requirePodReference, type IpamState, type PodReference } from './ipam-state.ts';

/**
 * ADD: an address per family that the pod asks for, or none at all. What fails after that (the gateway is silent), and a crash
 * between any two steps, leave a record in a pool that the next ADD of the pod finds by UID and interface, or that DEL or garbage
 * collection returns.
 */

const confSchema = z.looseObject({
  default_ipv4_ippool: z.array(z.string()).nullish(),
  default_ipv6_ippool: z.array(z.string()).nullish(),
  clean_gateway: z.boolean().nullish(),
  match_master_subnet: z.boolean().nullish(),
});

const routeSchema = z
  .object({
    dst: z.string().refine((text) => parsePrefix(text) !== undefined, 'must be a CIDR such as 10.9.0.0/16'),
    gw: z.string().refine((text) => parseIp(text) !== undefined, 'must be an IP address'),
  })
  .refine(
    ({ dst, gw }) => parsePrefix(dst)?.address.family === parseIp(gw)?.family,
    'dst and gw must use the same IP family',
  );
const routesSchema = z.array(routeSchema);

export async function addAddresses(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<CniResult> {
  return ipamResult(request, await addInterface(state, request, signal));
}

/** What an interface got. */
export interface InterfaceAddresses {
  readonly allocations: readonly PoolAllocation[];
  readonly cleanGateway: boolean;
  /** Of the pod's annotation: those whose gateway this interface reaches. */
  readonly routes: readonly PoolRoute[];
}

export async function addInterface(
  state: IpamState,
  request: CniRequest,
  signal: AbortSignal,
): Promise<InterfaceAddresses> {
  const reference = requirePodReference(request);
  const pod = await findPod(state, reference, signal);
  if (!isPodAlive(pod)) {
    const { namespace, name } = reference;
    throw podError(reference, `dead Pod ${namespace}/${name}, we cannot allocate IP addresees to it`);
  }
  const podUid = pod.metadata?.uid ?? '';
  using _ = state.adding(podUid);
  const ownership = await state.owners.of(pod, signal);
  const endpoint = await knownEndpoint(state, pod, reference, ownership, signal);
  const key = { podUid, pod: `${reference.namespace}/${ownership.recordName}`, interface: request.ifName };
  // Remembered first: a DEL of an older sandbox that comes meanwhile must not take the address away.
  state.remember({
    containerId: request.containerId,
    interface: key.interface,
    podUid,
    network: request.config.name,
  });
  const context = { request, pod, ownership, endpoint };
  // Before anything is allocated: a mistake in it must not cost an address.
  const wanted = parseAnnotation('Pod', spiderAnnotations.routes, pod.metadata?.annotations, routesSchema) ?? [];
  const { families, cleanGateway } = await planFamilies(state, context, signal);
  const kept = await returnOutdated(state, key, context, families);
  const allocations = await allocateChecked(state, key, context, families, signal);
  const routes = podRoutes(pod, wanted, allocations, state);
  const of = endpointOwner(state, reference, podUid, ownership);
  await state.endpoints.record(of, interfaceEntry(key.interface, allocations, { cleanGateway, routes }), kept);
  return { allocations, cleanGateway, routes };
}

/** Tries of one ADD when others are found at the addresses. */
const conflictTries = 3;

/**
 * Asks the link, where that is wanted. An address that somebody else has is set aside and another one taken; but a pod of a
 * workload whose addresses stay keeps it, and an address that the pod has on record is not given up either: ADD then fails.
 */
async function allocateChecked(
  state: IpamState,
  key: AllocationKey,
  { request, ownership }: AddContext,
  families: readonly FamilyPlan[],
  signal: AbortSignal,
): Promise<PoolAllocation[]> {
  const { detection, log } = state.deps;
  for (let attempt = 1; ; attempt++) {
    const allocations = await allocateAll(state, key, families, signal);
    if (detection === undefined || request.netns === undefined) return allocations;
    const place = { netns: request.netns, interfaceName: request.ifName };
    if (detection.conflicts && allocations.some(({ address }) => address.family === 6)) leaveOutDetection(place, log);
    const conflicts = await findConflicts(state, place, allocations, signal);
    const [first] = conflicts;
    if (first === undefined) {
      await requireGateways(state, place, allocations, signal);
      return allocations;
    }
    for (const { message } of conflicts) {
      log.warn({ pod: key.pod }, message);
      detection.onConflict(key.pod, key.podUid, message);
    }
    if (ownership.staticKind !== undefined || conflicts.some(({ allocation }) => isOnRecord(allocation, families)))
      throw conflictError(first);
    for (const { allocation, owner } of conflicts) {
      state.setAside({ address: allocation.address, owner });
      await giveBack(state, allocation.pool.metadata.name ?? '', key, 'this pod');
    }
    if (attempt === conflictTries) throw conflictError(first);
  }
}

/** Its endpoint says so. What only the pool says is of an ADD that was cut off, and the pod has never had it. */
function isOnRecord({ address }: PoolAllocation, families: readonly FamilyPlan[]): boolean {
  return families.some(({ recorded }) => recorded !== undefined && compareIp(recorded.address, address) === 0);
}

interface AddContext {
  readonly request: CniRequest;
  readonly pod: IpamPod;
  readonly ownership: Ownership;
  readonly endpoint: SpiderEndpoint | undefined;
}

/**
 * The endpoint, where it may say something: a pod's first interface has none, unless the pod is of a workload whose
 * addresses stay. A pod that had a sandbox before has its address in its status.
 */
async function knownEndpoint(
  state: IpamState,
  pod: IpamPod,
  { namespace }: PodReference,
  { staticKind, recordName }: Ownership,
  signal: AbortSignal,
): Promise<SpiderEndpoint | undefined> {
  const podUid = pod.metadata?.uid ?? '';
  const written = state.endpoints.written(podUid);
  if (written !== undefined) return written;
  const isFirst = (pod.status?.podIPs ?? []).length === 0 && !state.hasAttachment(podUid);
  return isFirst && staticKind === undefined ? undefined : state.endpoints.read(namespace, recordName, signal);
}

function endpointOwner(
  { deps }: IpamState,
  { namespace, name }: PodReference,
  podUid: string,
  { owner, staticKinds, recordName }: Ownership,
): EndpointOwner {
  return { namespace, name: recordName, podName: name, podUid, node: deps.nodeName, owner, staticKinds };
}

interface FamilyPlan {
  readonly user: PoolUser;
  readonly candidates: Awaited<ReturnType<typeof candidatePools>>;
  /** The interface's address of the family in the pod's endpoint. */
  readonly recorded: RecordedAddress | undefined;
}

interface AddPlan {
  readonly families: readonly FamilyPlan[];
  readonly cleanGateway: boolean;
}

async function planFamilies(state: IpamState, context: AddContext, signal: AbortSignal): Promise<AddPlan> {
  const { request, pod, endpoint } = context;
  const { deps } = state;
  const conf = readConf(request);
  const namespaceName = pod.metadata?.namespace ?? 'default';
  const namespace = await deps.readNamespace(namespaceName, signal);
  const { owner } = context.ownership;
  const ofApplication = await autoPoolSelection(state, pod, owner, request.ifName, signal);
  const selection =
    ofApplication ??
    selectPools({
      podAnnotations: pod.metadata?.annotations,
      namespaceAnnotations: namespace?.annotations,
      confIpv4: conf.default_ipv4_ippool ?? undefined,
      confIpv6: conf.default_ipv6_ippool ?? undefined,
      interface: request.ifName,
      // Interfaces that nobody numbers come after those on record.
      interfaceIndex: () => interfaceIndex(pod, request.ifName) ?? placeOnRecord(endpoint, request.ifName),
    });
  const node = await deps.readNode(deps.nodeName, signal);
  const recorded = isUsable(context) ? recordedAddresses(endpoint, request.ifName) : [];
  const physicalFunction = conf.match_master_subnet === true ? deps.physicalFunctionOf(request) : undefined;
  const families: FamilyPlan[] = [];
  for (const family of deps.families ?? ([4, 6] as const)) {
    const candidates = await candidatePools(state, selection, { family, interface: request.ifName }, signal);
    const isAsked = selection === undefined ? candidates.length > 0 : asksFor(selection, family);
    const user: PoolUser = {
      family,
      interface: request.ifName,
      podLabels: pod.metadata?.labels ?? {},
      owner,
      namespace: namespaceName,
      namespaceLabels: namespace?.labels ?? {},
      node: deps.nodeName,
      nodeLabels: node?.labels ?? {},
      attachment: () => attachmentOf(pod, request.ifName, attachmentDefaults(state)),
      attachmentNamespace: deps.attachmentNamespace,
      physicalFunction,
    };
    if (isAsked) families.push({ user, candidates, recorded: recordedOf(recorded, family) });
  }
  if (families.length === 0) throw nothingSpecified(pod);
  return { families, cleanGateway: conf.clean_gateway === true || selection?.cleanGateway === true };
}

/** The record of an earlier pod of the name counts only where addresses stay. */
function isUsable({ endpoint, pod, ownership }: AddContext): boolean {
  return ownership.staticKind !== undefined || endpoint?.status?.current.uid === pod.metadata?.uid;
}

function placeOnRecord(endpoint: SpiderEndpoint | undefined, interfaceName: string): number {
  const names = (endpoint?.status?.current.ips ?? []).map((entry) => entry.interface);
  const place = names.indexOf(interfaceName);
  return place < 0 ? names.length : place;
}

/**
 * A static pod whose annotations name other pools than before gives back what it had in the old ones. First, since its
 * new pool may be the smaller for it; it is no longer in use, the pod before it is gone. Answers the endpoint without it, which is
 * written before the pools: a record that no endpoint names is found by garbage collection, an endpoint without a record is not.
 */
async function returnOutdated(
  state: IpamState,
  key: AllocationKey,
  { endpoint, ownership }: AddContext,
  families: readonly FamilyPlan[],
): Promise<SpiderEndpoint | undefined> {
  if (ownership.staticKind === undefined || endpoint === undefined) return endpoint;
  const kept = new Set(
    families.flatMap(({ candidates, recorded }) =>
      candidates.some(({ metadata }) => metadata.name === recorded?.pool) ? (recorded?.pool ?? []) : [],
    ),
  );
  const recorded = recordedAddresses(endpoint, key.interface).map(({ pool }) => pool);
  const outdated = new Set(recorded.filter((pool) => !kept.has(pool)));
  if (outdated.size === 0) return endpoint;
  const rest = await state.endpoints.dropPools(endpoint, key.interface, outdated);
  await Promise.all([...outdated].map((pool) => giveBack(state, pool, key, 'earlier pod')));
  return rest;
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
  const attempts = families.map((family) => allocateFamily(state, { key, ...family }, signal));
  const settled = await Promise.allSettled(attempts);
  const allocations = settled.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const failure = settled.find((outcome) => outcome.status === 'rejected');
  if (failure === undefined) return allocations;
  const taken = allocations.filter(({ isNew }) => isNew);
  await Promise.all(taken.map(({ pool }) => giveBack(state, pool.metadata.name ?? '', key, 'this pod')));
  throw failure.reason;
}

async function giveBack(
  state: IpamState,
  poolName: string,
  key: AllocationKey,
  from: 'this pod' | 'earlier pod',
): Promise<void> {
  const isOurs = (podUid: string): boolean => podUid === key.podUid;
  try {
    await state.writer.run(poolName, 'release', (book) =>
      book.release(
        ({ pod, podUid, interface: name }) =>
          name === key.interface && (from === 'this pod' ? isOurs(podUid) : pod === key.pod && !isOurs(podUid)),
      ),
    );
  } catch (error) {
    // The same pod gets the same address when it is tried again; and when it goes, its DEL returns it.
    state.deps.log.warn({ pool: poolName, pod: key.pod, error }, 'could not give an address back');
  }
}

/** Those of the pod's routes whose gateway this interface reaches. */
function podRoutes(
  pod: IpamPod,
  wanted: readonly PoolRoute[],
  allocations: readonly PoolAllocation[],
  { deps }: IpamState,
): PoolRoute[] {
  return wanted.filter((route) => {
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
