import { spiderAnnotations } from '../api/spider.ts';
import type { CoordinatorSpec, MultusConfigSpec, ParentSpec, SpiderMultusConfig } from '../api/spidermultusconfig.ts';
import { formatPrefix, ipToPrefix, parseIp } from '../core/ip.ts';

/** What the mutating webhook makes of a SpiderMultusConfig; the CRD's own defaults are in deploy/crds. */
export function defaultMultusConfig(config: SpiderMultusConfig): SpiderMultusConfig {
  if (config.metadata.deletionTimestamp) return config;
  const cniType = config.spec?.cniType ?? 'custom';
  const spec: MultusConfigSpec = { ...config.spec, cniType, chainCNIJsonData: config.spec?.chainCNIJsonData ?? [] };
  if (cniType === 'custom') {
    delete spec.coordinator;
    spec.enableCoordinator = false;
    spec.customCNI ??= '';
  } else {
    spec.coordinator = defaultCoordinator(spec.coordinator ?? {});
    defaultTypeBlock(spec);
  }
  return { ...config, metadata: { ...config.metadata, ...injectLabels(config) }, spec };
}

function defaultTypeBlock(spec: MultusConfigSpec): void {
  if (spec.macvlan !== undefined) spec.macvlan = { ...defaultParent(spec.macvlan), vlanID: spec.macvlan.vlanID ?? 0 };
  if (spec.ipvlan !== undefined) spec.ipvlan = { ...defaultParent(spec.ipvlan), vlanID: spec.ipvlan.vlanID ?? 0 };
  if (spec.vlan !== undefined) {
    const isManual = (spec.vlan.vlanMode ?? 'manual') === 'manual';
    spec.vlan = { ...defaultParent(spec.vlan), ...(isManual ? { vlanID: spec.vlan.vlanID ?? 0 } : {}) };
  }
  if (spec.ovs !== undefined) spec.ovs = { ...spec.ovs, vlan: spec.ovs.vlan ?? 0 };
}

function defaultParent<T extends ParentSpec>(parent: T): T {
  const bond = parent.bond === undefined ? {} : { bond: { ...parent.bond, options: parent.bond.options ?? '' } };
  return { ...parent, rdmaResourceName: parent.rdmaResourceName ?? '', ...bond };
}

function defaultCoordinator(coordinator: CoordinatorSpec): CoordinatorSpec {
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

function asPrefix(text: string): string {
  const ip = parseIp(text);
  return ip === undefined ? text : formatPrefix(ipToPrefix(ip));
}

function injectLabels(config: SpiderMultusConfig): { labels?: Record<string, string> } {
  const labels = { ...config.metadata.labels };
  for (const key of [spiderAnnotations.rdmaInject, spiderAnnotations.networkInject]) {
    const value = config.metadata.annotations?.[key];
    if (value !== undefined) labels[key] = value;
  }
  return Object.keys(labels).length > 0 ? { labels } : {};
}
