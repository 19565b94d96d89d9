import { spiderFinalizer, spiderLabels } from '../api/spider.ts';
import type { PoolSpec, SpiderIPPool } from '../api/spiderippool.ts';
import { formatIpRange, mergeRanges } from '../core/ip-range.ts';
import { formatPrefix, parsePrefix } from '../core/ip.ts';
import { parseRanges } from './pool-addresses.ts';

export interface PoolDefaultsOptions {
  /** Leave a subnet with host bits as it is; validation then refuses it, as Spiderpool does. */
  readonly strictSubnet?: boolean;
}

export interface Defaulted<T> {
  readonly object: T;
  readonly warnings: readonly string[];
}

/** What the mutating webhook makes of a pool. What cannot be understood is left for validation to report. */
export function defaultPool(pool: SpiderIPPool, options: PoolDefaultsOptions = {}): Defaulted<SpiderIPPool> {
  if (pool.metadata.deletionTimestamp) return { object: pool, warnings: [] };
  const prefix = parsePrefix(pool.spec.subnet);
  const spec: PoolSpec = { ...pool.spec };
  const labels = { ...pool.metadata.labels };
  const warnings: string[] = [];
  if (prefix !== undefined) {
    const canonical = formatPrefix(prefix);
    if (pool.spec.subnet !== canonical && options.strictSubnet !== true) {
      spec.subnet = canonical;
      warnings.push(
        `spec.subnet: "${pool.spec.subnet}" has host bits set or is not canonical; it is stored as "${canonical}"`,
      );
    }
    spec.ipVersion ??= prefix.address.family;
    labels[spiderLabels.poolCidr] = canonical.replace(/[.:/]/g, '-');
  }
  if (spec.ips !== undefined) spec.ips = mergeTexts(spec.ips);
  if (spec.excludeIPs !== undefined) spec.excludeIPs = mergeTexts(spec.excludeIPs);
  const finalizers = [...new Set([...(pool.metadata.finalizers ?? []), spiderFinalizer])];
  return { object: { ...pool, metadata: { ...pool.metadata, labels, finalizers }, spec }, warnings };
}

/** Several elements become sorted minimal ranges; a single one stays as it was written. */
function mergeTexts(texts: string[]): string[] {
  if (texts.length < 2) return texts;
  const { ranges, malformed } = parseRanges(texts);
  return malformed.length > 0 ? texts : mergeRanges(ranges).map(formatIpRange);
}
