/** EndpointSlices of Services with a selector: one per address family, set of resolved ports, and hundred endpoints. */

import type { EndpointSlice, Pod, Service, ServicePort } from '../../api/kubernetes.ts';
import { endpointSlices, services } from '../../api/resources.ts';
import { matchesSelector } from '../../core/labels.ts';
import { parseIp } from '../../core/ip.ts';
import type { Action } from './action.ts';
import { isControlledBy, ownerReference } from './ownership.ts';
import { isFinished, isReady, isTerminating } from './pod-state.ts';
import { safeHash, stableJson } from './template.ts';

type Endpoint = EndpointSlice['endpoints'][number];
type EndpointPort = NonNullable<EndpointSlice['ports']>[number];

/** kube-controller-manager's --max-endpoints-per-slice. */
const maxEndpointsPerSlice = 100;
const serviceNameLabel = 'kubernetes.io/service-name';
const managedByLabel = 'endpointslice.kubernetes.io/managed-by';
const managedBy = 'endpointslice-controller.k8s.io';

export function planEndpointSlices(
  service: Service,
  podsInNamespace: readonly Pod[],
  slices: readonly EndpointSlice[],
): Action[] {
  const mine = slices.filter((slice) => isControlledBy(slice, service));
  const wanted = service.metadata?.deletionTimestamp === undefined ? desiredSlices(service, podsInNamespace) : [];
  const actions: Action[] = [];
  for (const slice of wanted) {
    const actual = mine.find(({ metadata }) => metadata?.name === slice.metadata?.name);
    if (actual === undefined) actions.push({ verb: 'create', gvr: endpointSlices, object: slice });
    else if (!sameContent(slice, actual)) {
      const metadata = { ...actual.metadata, labels: { ...actual.metadata?.labels, ...slice.metadata?.labels } };
      actions.push({ verb: 'replace', gvr: endpointSlices, object: { ...slice, metadata } });
    }
  }
  const stale = mine.filter(({ metadata }) => !wanted.some((slice) => slice.metadata?.name === metadata?.name));
  return [...actions, ...stale.map((object): Action => ({ verb: 'delete', gvr: endpointSlices, object }))];
}

export function desiredSlices(service: Service, podsInNamespace: readonly Pod[]): EndpointSlice[] {
  const { selector, type, ipFamilies, publishNotReadyAddresses = false } = service.spec ?? {};
  if (selector === undefined || Object.keys(selector).length === 0 || type === 'ExternalName') return [];
  const pods = podsInNamespace.filter(
    (pod) => matchesSelector({ matchLabels: selector }, pod.metadata?.labels) && isEndpoint(pod),
  );
  const families = ipFamilies ?? familiesOf(pods);
  return families.flatMap((family) =>
    familySlices(service, family === 'IPv6' ? 'IPv6' : 'IPv4', pods, publishNotReadyAddresses),
  );
}

/** A pod with addresses that has not ended; a terminating one stays in until it is gone. */
function isEndpoint(pod: Pod): boolean {
  return !isFinished(pod) && addressesOf(pod).length > 0;
}

function familySlices(
  service: Service,
  addressType: 'IPv4' | 'IPv6',
  pods: readonly Pod[],
  publishNotReady: boolean,
): EndpointSlice[] {
  const groups = new Map<string, { ports: readonly EndpointPort[]; endpoints: Endpoint[] }>();
  for (const pod of pods) {
    const address = addressesOf(pod).find((ip) => familyOf(ip) === addressType);
    if (address === undefined) continue;
    const ports = resolvePorts(service, pod);
    const key = stableJson(ports);
    const group = groups.get(key) ?? { ports, endpoints: [] };
    group.endpoints.push(endpointOf(pod, address, publishNotReady));
    groups.set(key, group);
  }
  return [...groups].flatMap(([key, { ports, endpoints }]) =>
    chunk(sortedByAddress(endpoints), maxEndpointsPerSlice).map((part, index) =>
      sliceOf(service, addressType, `${key}/${index}`, ports, part),
    ),
  );
}

function sliceOf(
  service: Service,
  addressType: 'IPv4' | 'IPv6',
  key: string,
  ports: readonly EndpointPort[],
  endpoints: readonly Endpoint[],
): EndpointSlice {
  const { name = '', namespace } = service.metadata ?? {};
  return {
    metadata: {
      name: `${name}-${safeHash(`${addressType}/${key}`, 5)}`,
      namespace,
      labels: { ...service.metadata?.labels, [serviceNameLabel]: name, [managedByLabel]: managedBy },
      ownerReferences: [ownerReference(services, service)],
    },
    addressType,
    endpoints,
    ports,
  };
}

function endpointOf(pod: Pod, address: string, publishNotReady: boolean): Endpoint {
  const { name, namespace, uid } = pod.metadata ?? {};
  const serving = publishNotReady || isReady(pod);
  const hostname = pod.spec?.subdomain === undefined ? {} : { hostname: pod.spec.hostname ?? name };
  return {
    addresses: [address],
    conditions: {
      ready: serving && (publishNotReady || !isTerminating(pod)),
      serving,
      terminating: isTerminating(pod),
    },
    ...hostname,
    nodeName: pod.spec?.nodeName,
    targetRef: { kind: 'Pod', namespace, name, uid },
  };
}

/** A port by name may be another number in every pod; a pod without that name does not serve the port. */
function resolvePorts(service: Service, pod: Pod): EndpointPort[] {
  return (service.spec?.ports ?? []).flatMap((port) => {
    const number = resolvePort(port, pod);
    return number === undefined ? [] : [{ name: port.name ?? '', protocol: port.protocol ?? 'TCP', port: number }];
  });
}

function resolvePort({ port, targetPort = port, protocol = 'TCP' }: ServicePort, pod: Pod): number | undefined {
  if (typeof targetPort === 'number') return targetPort === 0 ? port : targetPort;
  const declared = (pod.spec?.containers ?? []).flatMap(({ ports = [] }) => ports);
  return declared.find(({ name, protocol: own = 'TCP' }) => name === targetPort && own === protocol)?.containerPort;
}

function familiesOf(pods: readonly Pod[]): string[] {
  return [...new Set(pods.flatMap(addressesOf).map(familyOf))].sort();
}

function addressesOf(pod: Pod): string[] {
  const all = pod.status?.podIPs?.map(({ ip }) => ip) ?? [];
  return all.length > 0 ? all : [pod.status?.podIP ?? ''].filter(Boolean);
}

function familyOf(ip: string): 'IPv4' | 'IPv6' {
  return parseIp(ip)?.family === 6 ? 'IPv6' : 'IPv4';
}

function sortedByAddress(endpoints: readonly Endpoint[]): Endpoint[] {
  return [...endpoints].sort((a, b) => ((a.addresses[0] ?? '') < (b.addresses[0] ?? '') ? -1 : 1));
}

function sameContent(wanted: EndpointSlice, actual: EndpointSlice): boolean {
  const content = ({ endpoints, ports }: EndpointSlice): string =>
    stableJson({ endpoints: endpoints ?? [], ports: ports ?? [] });
  const labels = Object.entries(wanted.metadata?.labels ?? {});
  return (
    content(wanted) === content(actual) && labels.every(([key, value]) => actual.metadata?.labels?.[key] === value)
  );
}

function chunk<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
