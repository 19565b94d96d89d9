import { spiderAnnotations } from '../api/spider.ts';
import type { MultusConfigSpec, ParentSpec, SpiderMultusConfig } from '../api/spidermultusconfig.ts';
import { defaultCoordinator } from './coordinator-defaults.ts';

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

function injectLabels(config: SpiderMultusConfig): { labels?: Record<string, string> } {
  const labels = { ...config.metadata.labels };
  for (const key of [spiderAnnotations.rdmaInject, spiderAnnotations.networkInject]) {
    const value = config.metadata.annotations?.[key];
    if (value !== undefined) labels[key] = value;
  }
  return Object.keys(labels).length > 0 ? { labels } : {};
}
