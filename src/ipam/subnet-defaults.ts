import { spiderFinalizer, spiderLabels } from '../api/spider.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { defaultAddressSet, type AddressSetDefaultsOptions } from './address-set-defaults.ts';
import type { Defaulted } from './pool-defaults.ts';

/** What the mutating webhook makes of a subnet. */
export function defaultSubnet(subnet: SpiderSubnet, options: AddressSetDefaultsOptions = {}): Defaulted<SpiderSubnet> {
  if (subnet.metadata.deletionTimestamp) return { object: subnet, warnings: [] };
  const { spec, cidrLabel, warnings } = defaultAddressSet(subnet.spec, options);
  const labels = {
    ...subnet.metadata.labels,
    ...(cidrLabel === undefined ? {} : { [spiderLabels.subnetCidr]: cidrLabel }),
  };
  const finalizers = [...new Set([...(subnet.metadata.finalizers ?? []), spiderFinalizer])];
  return { object: { ...subnet, metadata: { ...subnet.metadata, labels, finalizers }, spec }, warnings };
}
