import { spiderAnnotations } from '../api/spider.ts';
import type { BondSpec, CoordinatorSpec, MultusConfigSpec, ParentSpec, PoolNames } from '../api/spidermultusconfig.ts';
import { goStruct, RawJson } from './go-json.ts';

/**
 * spec.config of the generated attachment. The order of the plugins and of the keys in each is what Spiderpool
 * writes, with three decisions of ours (docs/decisions/0001): `mtu` is left out when 0, `hostRuleTable` and
 * `podRPFilter` are written when they differ from their defaults, and mode `disabled` is written as `disable`, the
 * word that Spiderpool's coordinator knows.
 */

const defaultHostRuleTable = 500;

export interface AttachmentNames {
  /** Name of the NetworkAttachmentDefinition. */
  readonly attachment: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Undefined for a custom type without a configuration: the runtime then looks for a file of the attachment's name. */
export function attachmentConfig(spec: MultusConfigSpec, names: AttachmentNames): string | undefined {
  if ((spec.cniType ?? 'custom') === 'custom') return spec.customCNI === '' ? undefined : spec.customCNI;
  const plugins = [
    ...interfacePlugins(spec),
    mainPlugin(spec),
    ...(spec.sriov?.rdmaIsolation === true ? ['{"type":"rdma"}'] : []),
    ...(spec.chainCNIJsonData ?? []).map((text) => goStruct(sortedMembers(text))),
    ...(spec.enableCoordinator === false ? [] : [coordinatorPlugin(spec.coordinator ?? {})]),
    ...(spec.sriov?.mtu
      ? [
          goStruct([
            ['type', 'tuning'],
            ['mtu', spec.sriov.mtu],
          ]),
        ]
      : []),
  ];
  return goStruct([
    ['cniVersion', names.annotations[spiderAnnotations.cniVersion] ?? '0.3.1'],
    ['name', names.annotations[spiderAnnotations.cniConfigName] || names.attachment],
    ['plugins', RawJson.array(plugins)],
  ]);
}

function sortedMembers(text: string): [string, unknown][] {
  const plugin: unknown = JSON.parse(text);
  const members = Object.entries(plugin as Record<string, unknown>);
  return members.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** ifacer makes the VLAN or bond on the node before the main plugin uses it as its parent. */
function interfacePlugins(spec: MultusConfigSpec): string[] {
  const parent = spec.macvlan ?? spec.ipvlan ?? spec.vlan;
  if (parent === undefined) return [];
  const vlanId = spec.vlan === undefined ? parent.vlanID : 0;
  if (!vlanId && parent.master.length < 2) return [];
  const bond = parent.master.length < 2 ? undefined : bondObject(parent.bond);
  const members: [string, unknown][] = [
    ['vlanID', vlanId || undefined],
    ['type', 'ifacer'],
    ['interfaces', parent.master],
    ['bond', bond],
  ];
  return [goStruct(members)];
}

function bondObject(bond: BondSpec | undefined): RawJson | undefined {
  if (bond === undefined) return undefined;
  const { name, mode, options = '' } = bond;
  return new RawJson(goStruct(Object.entries({ name, mode, options })));
}

/** The one parent, or the bond over several. */
function parentName(parent: ParentSpec): string {
  return (parent.master.length > 1 ? parent.bond?.name : parent.master[0]) ?? '';
}

function parentWithVlan(parent: ParentSpec): string {
  return parent.vlanID ? `${parentName(parent)}.${parent.vlanID}` : parentName(parent);
}

function mainPlugin(spec: MultusConfigSpec): string {
  const type = spec.cniType;
  if (spec.macvlan !== undefined) return macvlanPlugin(spec.macvlan, spec);
  if (spec.ipvlan !== undefined) return ipvlanPlugin(spec.ipvlan, spec);
  if (spec.vlan !== undefined) return vlanPlugin(spec.vlan, spec);
  if (spec.sriov !== undefined) return sriovPlugin(spec.sriov, spec);
  if (spec.ibsriov !== undefined) return ibSriovPlugin(spec.ibsriov, spec);
  if (spec.ipoib !== undefined) {
    return goStruct([
      ['type', type],
      ['master', spec.ipoib.master],
      ['ipam', ipam(spec, spec.ipoib.ippools)],
    ]);
  }
  if (spec.ovs !== undefined) return ovsPlugin(spec.ovs, spec);
  return goStruct([['type', type]]);
}

function macvlanPlugin(parent: ParentSpec, spec: MultusConfigSpec): string {
  return goStruct([
    ['type', 'macvlan'],
    ['master', parentWithVlan(parent)],
    ['mode', 'bridge'],
    ['mtu', parent.mtu || undefined],
    ['ipam', ipam(spec, parent.ippools)],
  ]);
}

/** No mode: ipvlan's own default, l2. */
function ipvlanPlugin(parent: ParentSpec, spec: MultusConfigSpec): string {
  return goStruct([
    ['type', 'ipvlan'],
    ['master', parentWithVlan(parent)],
    ['mtu', parent.mtu || undefined],
    ['ipam', ipam(spec, parent.ippools)],
  ]);
}

function vlanPlugin(vlan: NonNullable<MultusConfigSpec['vlan']>, spec: MultusConfigSpec): string {
  const mode = vlan.vlanMode ?? 'manual';
  return goStruct([
    ['type', 'vlan'],
    ['master', parentName(vlan)],
    ['vlanMode', mode],
    ['vlanId', mode === 'auto' ? undefined : (vlan.vlanID ?? 0)],
    ['mtu', vlan.mtu || undefined],
    ['ipam', ipam(spec, vlan.ippools)],
  ]);
}

function sriovPlugin(sriov: NonNullable<MultusConfigSpec['sriov']>, spec: MultusConfigSpec): string {
  return goStruct([
    ['vlan', sriov.vlanID ?? 0],
    ['min_tx_rate', sriov.minTxRateMbps ?? 0],
    ['max_tx_rate', sriov.maxTxRateMbps ?? 0],
    ['type', 'sriov'],
    ['ipam', ipam(spec, sriov.ippools)],
  ]);
}

function ibSriovPlugin(ib: NonNullable<MultusConfigSpec['ibsriov']>, spec: MultusConfigSpec): string {
  return goStruct([
    ['type', 'ib-sriov'],
    ['pkey', ib.pkey || undefined],
    ['link_state', ib.linkState ?? 'enable'],
    ['rdmaIsolation', ib.rdmaIsolation ?? true],
    ['ibKubernetesEnabled', ib.enableIbKubernetes ?? false],
    ['ipam', ipam(spec, ib.ippools)],
  ]);
}

function ovsPlugin(ovs: NonNullable<MultusConfigSpec['ovs']>, spec: MultusConfigSpec): string {
  const trunk = (ovs.trunk ?? []).map(({ minID, maxID, id }) => goStruct(Object.entries({ minID, maxID, id })));
  return goStruct([
    ['vlan', ovs.vlan ?? 0],
    ['type', 'ovs'],
    ['bridge', ovs.bridge],
    ['deviceID', ovs.deviceID || undefined],
    ['ipam', ipam(spec, ovs.ippools)],
    ['trunk', trunk.length > 0 ? RawJson.array(trunk) : undefined],
  ]);
}

function ipam(spec: MultusConfigSpec, pools: PoolNames | undefined): RawJson | undefined {
  if (spec.disableIPAM === true) return undefined;
  const members: [string, unknown][] = [
    ['type', 'spiderpool'],
    ['default_ipv4_ippool', nonEmpty(pools?.ipv4)],
    ['default_ipv6_ippool', nonEmpty(pools?.ipv6)],
    ['match_master_subnet', pools?.matchMasterSubnet || undefined],
  ];
  return new RawJson(goStruct(members));
}

function coordinatorPlugin(spec: CoordinatorSpec): string {
  const routes = (spec.policyRoutes ?? []).map(({ dst, gw }) => goStruct(Object.entries({ dst, gw })));
  const { hostRuleTable = defaultHostRuleTable } = spec;
  return goStruct([
    ['txQueueLen', spec.txQueueLen ?? 0],
    ['vethLinkAddress', spec.vethLinkAddress || undefined],
    ['vethMTU', spec.vethMTU],
    ['tunePodRoutes', spec.tunePodRoutes ?? true],
    ['podMACPrefix', spec.podMACPrefix || undefined],
    ['mode', spec.mode === 'disabled' ? 'disable' : (spec.mode ?? 'auto')],
    ['type', 'coordinator'],
    ['podDefaultRouteNic', spec.podDefaultRouteNIC || undefined],
    ['hostRuleTable', hostRuleTable === defaultHostRuleTable ? undefined : hostRuleTable],
    ['podRPFilter', spec.podRPFilter || undefined],
    ['hijackCIDR', nonEmpty(spec.hijackCIDR)],
    ['policyRoutes', routes.length > 0 ? RawJson.array(routes) : undefined],
  ]);
}

function nonEmpty(list: readonly string[] | undefined): readonly string[] | undefined {
  return list === undefined || list.length === 0 ? undefined : list;
}
