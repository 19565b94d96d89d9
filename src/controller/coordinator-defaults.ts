import { spiderFinalizer } from '../api/spider.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import type { CoordinatorSpec } from '../api/spidermultusconfig.ts';
import { formatPrefix, ipToPrefix, parseIp } from '../core/ip.ts';

/** What the mutating webhooks fill in of a coordinator's settings, in a SpiderCoordinator and in a SpiderMultusConfig. */

const defaultVethMtu = 1500;

export function defaultCoordinator(coordinator: CoordinatorSpec): CoordinatorSpec {
  return {
    ...coordinator,
    mode: coordinator.mode ?? 'auto',
    hijackCIDR: (coordinator.hijackCIDR ?? []).map(asPrefix),
    policyRoutes: (coordinator.policyRoutes ?? []).map((route) => ({ ...route, dst: asPrefix(route.dst) })),
    vethLinkAddress: coordinator.vethLinkAddress ?? '',
    podMACPrefix: coordinator.podMACPrefix ?? '',
    podDefaultRouteNIC: coordinator.podDefaultRouteNIC ?? '',
    podRPFilter: coordinator.podRPFilter ?? 0,
    tunePodRoutes: coordinator.tunePodRoutes ?? true,
    txQueueLen: coordinator.txQueueLen ?? 0,
    hostRuleTable: coordinator.hostRuleTable ?? 500,
  };
}

export function defaultSpiderCoordinator(object: SpiderCoordinator): SpiderCoordinator {
  if (object.metadata.deletionTimestamp) return object;
  const spec = { ...defaultCoordinator(object.spec ?? {}), vethMTU: object.spec?.vethMTU ?? defaultVethMtu };
  const finalizers = [...new Set([...(object.metadata.finalizers ?? []), spiderFinalizer])];
  return { ...object, metadata: { ...object.metadata, finalizers }, spec };
}

function asPrefix(text: string): string {
  const ip = parseIp(text);
  return ip === undefined ? text : formatPrefix(ipToPrefix(ip));
}
