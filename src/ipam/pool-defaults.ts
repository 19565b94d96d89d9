import { spiderApiVersion, spiderFinalizer, spiderLabels } from '../api/spider.ts';
import type { PoolSpec, SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { defaultAddressSet, type AddressSetDefaultsOptions } from './address-set-defaults.ts';
import { subnetOfPool } from './subnet-pools.ts';

export interface PoolDefaultsOptions extends AddressSetDefaultsOptions {
  /** From the API server; absent when subnets are switched off. */
  readonly subnets?: readonly SpiderSubnet[] | undefined;
}

export interface Defaulted<T> {
  readonly object: T;
  readonly warnings: readonly string[];
}

/** What the mutating webhook makes of a pool. What cannot be understood is left for validation to report. */
export function defaultPool(pool: SpiderIPPool, options: PoolDefaultsOptions = {}): Defaulted<SpiderIPPool> {
  if (pool.metadata.deletionTimestamp) return { object: pool, warnings: [] };
  const { spec, cidrLabel, warnings } = defaultAddressSet(pool.spec, options);
  const labels = {
    ...pool.metadata.labels,
    ...(cidrLabel === undefined ? {} : { [spiderLabels.poolCidr]: cidrLabel }),
  };
  const finalizers = [...new Set([...(pool.metadata.finalizers ?? []), spiderFinalizer])];
  const object = { ...pool, metadata: { ...pool.metadata, labels, finalizers }, spec };
  const owner = subnetOfPool(object, options.subnets ?? []);
  return { object: owner === undefined ? object : inherit(object, owner), warnings };
}

/** Gateway and routes come from the subnet where the pool has none; deleting the subnet in the foreground takes the pool. */
function inherit(pool: SpiderIPPool, subnet: SpiderSubnet): SpiderIPPool {
  const name = subnet.metadata.name ?? '';
  const reference = {
    apiVersion: spiderApiVersion,
    kind: 'SpiderSubnet',
    name,
    uid: subnet.metadata.uid ?? '',
    controller: true,
    blockOwnerDeletion: true,
  };
  const others = (pool.metadata.ownerReferences ?? []).filter(
    (owner) => owner.kind !== 'SpiderSubnet' && owner.controller !== true,
  );
  const spec: PoolSpec = { ...pool.spec };
  if (spec.gateway === undefined && subnet.spec.gateway !== undefined) spec.gateway = subnet.spec.gateway;
  if (spec.routes === undefined && subnet.spec.routes !== undefined) spec.routes = [...subnet.spec.routes];
  const labels = { ...pool.metadata.labels, [spiderLabels.ownerSubnet]: name };
  return { ...pool, metadata: { ...pool.metadata, labels, ownerReferences: [...others, reference] }, spec };
}
