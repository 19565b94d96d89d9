import { z } from 'zod';
import { objectMetaSchema } from './spider-schema.ts';

/** SpiderMultusConfig, namespaced: what a NetworkAttachmentDefinition is generated from. */

export const cniTypes = ['macvlan', 'ipvlan', 'vlan', 'sriov', 'ovs', 'ib-sriov', 'ipoib', 'custom'] as const;
export type CniType = (typeof cniTypes)[number];

const poolNamesSchema = z.looseObject({
  ipv4: z.array(z.string()).optional(),
  ipv6: z.array(z.string()).optional(),
  matchMasterSubnet: z.boolean().optional(),
});

const bondSchema = z.looseObject({ name: z.string(), mode: z.number().int(), options: z.string().optional() });

const parentSchema = z.looseObject({
  master: z.array(z.string()),
  mtu: z.number().int().optional(),
  vlanID: z.number().int().optional(),
  bond: bondSchema.optional(),
  rdmaResourceName: z.string().optional(),
  ippools: poolNamesSchema.optional(),
});

const vlanSchema = parentSchema.extend({ vlanMode: z.string().optional() });

const sriovSchema = z.looseObject({
  resourceName: z.string(),
  vlanID: z.number().int().optional(),
  mtu: z.number().int().optional(),
  minTxRateMbps: z.number().int().optional(),
  maxTxRateMbps: z.number().int().optional(),
  rdmaIsolation: z.boolean().optional(),
  ippools: poolNamesSchema.optional(),
});

const ibSriovSchema = z.looseObject({
  resourceName: z.string(),
  pkey: z.string().optional(),
  linkState: z.string().optional(),
  rdmaIsolation: z.boolean().optional(),
  enableIbKubernetes: z.boolean().optional(),
  ippools: poolNamesSchema.optional(),
});

const ipoibSchema = z.looseObject({ master: z.string(), ippools: poolNamesSchema.optional() });

const trunkSchema = z.looseObject({
  minID: z.number().int().optional(),
  maxID: z.number().int().optional(),
  id: z.number().int().optional(),
});

const ovsSchema = z.looseObject({
  bridge: z.string(),
  vlan: z.number().int().optional(),
  trunk: z.array(trunkSchema).optional(),
  deviceID: z.string().optional(),
  ippools: poolNamesSchema.optional(),
});

export const coordinatorSpecSchema = z.looseObject({
  mode: z.string().optional(),
  podCIDRType: z.string().optional(),
  hijackCIDR: z.array(z.string()).optional(),
  policyRoutes: z.array(z.looseObject({ dst: z.string(), gw: z.string() })).optional(),
  podMACPrefix: z.string().optional(),
  tunePodRoutes: z.boolean().optional(),
  podDefaultRouteNIC: z.string().optional(),
  hostRuleTable: z.number().int().optional(),
  podRPFilter: z.number().int().optional(),
  txQueueLen: z.number().int().optional(),
  vethLinkAddress: z.string().optional(),
  vethMTU: z.number().int().optional(),
});

export const multusConfigSpecSchema = z.looseObject({
  cniType: z.string().optional(),
  macvlan: parentSchema.optional(),
  ipvlan: parentSchema.optional(),
  vlan: vlanSchema.optional(),
  sriov: sriovSchema.optional(),
  ovs: ovsSchema.optional(),
  ibsriov: ibSriovSchema.optional(),
  ipoib: ipoibSchema.optional(),
  enableCoordinator: z.boolean().optional(),
  disableIPAM: z.boolean().optional(),
  coordinator: coordinatorSpecSchema.optional(),
  chainCNIJsonData: z.array(z.string()).optional(),
  customCNI: z.string().optional(),
});

export const conditionSchema = z.looseObject({
  type: z.string(),
  status: z.string(),
  observedGeneration: z.number().int().optional(),
  lastTransitionTime: z.string(),
  reason: z.string(),
  message: z.string(),
});

/** Not in Spiderpool, where a failed generation shows in logs only. */
export const multusConfigStatusSchema = z.looseObject({
  observedGeneration: z.number().int().optional(),
  /** Name of the generated attachment. */
  attachment: z.string().optional(),
  conditions: z.array(conditionSchema).optional(),
});

export const multusConfigSchema = z.looseObject({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  metadata: objectMetaSchema,
  spec: multusConfigSpecSchema.optional(),
  status: multusConfigStatusSchema.optional(),
});

/** The spec's keys that configure one type each. `ib-sriov` is spelled `ibsriov` there. */
export const typeBlocks = ['macvlan', 'ipvlan', 'vlan', 'sriov', 'ovs', 'ibsriov', 'ipoib'] as const;
export type TypeBlock = (typeof typeBlocks)[number];

export type PoolNames = z.infer<typeof poolNamesSchema>;
export type BondSpec = z.infer<typeof bondSchema>;
export type ParentSpec = z.infer<typeof parentSchema>;
export type VlanSpec = z.infer<typeof vlanSchema>;
export type SriovSpec = z.infer<typeof sriovSchema>;
export type IbSriovSpec = z.infer<typeof ibSriovSchema>;
export type OvsSpec = z.infer<typeof ovsSchema>;
export type CoordinatorSpec = z.infer<typeof coordinatorSpecSchema>;
export type MultusConfigSpec = z.infer<typeof multusConfigSpecSchema>;
export type StatusCondition = z.infer<typeof conditionSchema>;
export type MultusConfigStatus = z.infer<typeof multusConfigStatusSchema>;
export type SpiderMultusConfig = z.infer<typeof multusConfigSchema>;

/** k8s.cni.cncf.io/v1: what Multus and the kubelet's CNI runner read. Without a config, Multus looks for a file of that name. */
export interface NetworkAttachmentDefinition {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: z.infer<typeof objectMetaSchema>;
  readonly spec?: { readonly config?: string };
}
