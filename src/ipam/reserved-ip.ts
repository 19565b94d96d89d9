import { forbidden, invalid, notSupported, type FieldError } from '../api/field-error.ts';
import type { ReservedIpSpec, SpiderReservedIP } from '../api/spiderreservedip.ts';
import { parseIpRange, type IpRange } from '../core/ip-range.ts';
import { mergeTexts } from './address-set-defaults.ts';

/** SpiderReservedIP: defaulting, validation, and the addresses that all of them together keep back. */

/** What the mutating webhook makes of it. */
export function defaultReservedIp(reserved: SpiderReservedIP): SpiderReservedIP {
  if (reserved.metadata.deletionTimestamp) return reserved;
  const spec: ReservedIpSpec = { ...reserved.spec };
  const family = parseIpRange(spec.ips?.[0] ?? '')?.first.family;
  if (spec.ipVersion === undefined && family !== undefined) spec.ipVersion = family;
  if (spec.ips !== undefined) spec.ips = mergeTexts(spec.ips);
  return { ...reserved, spec };
}

export interface ReservedIpContext {
  readonly old?: SpiderReservedIP | undefined;
  readonly disabledFamilies?: readonly number[] | undefined;
}

export function validateReservedIp(reserved: SpiderReservedIP, context: ReservedIpContext = {}): FieldError[] {
  const { spec } = reserved;
  const { old } = context;
  if (old?.metadata.deletionTimestamp) return [];
  if (old !== undefined && old.spec.ipVersion !== spec.ipVersion) {
    const was = old.spec.ipVersion ?? 'unset';
    return [forbidden('spec.ipVersion', `is not changeable, it is ${was}; create another SpiderReservedIP`)];
  }
  const version = validateVersion(spec, context.disabledFamilies ?? []);
  return version.length > 0 ? version : validateRanges(spec);
}

/** What no pool hands out. One that is going counts no more. */
export function reservedRanges(all: readonly SpiderReservedIP[]): IpRange[] {
  return all
    .filter(({ metadata }) => !metadata.deletionTimestamp)
    .flatMap(({ spec }) => spec.ips ?? [])
    .flatMap((text) => parseIpRange(text) ?? []);
}

function validateVersion(spec: ReservedIpSpec, disabledFamilies: readonly number[]): FieldError[] {
  const field = 'spec.ipVersion';
  if (spec.ipVersion === undefined) {
    const detail = "is not generated correctly, 'spec.ips[0]' may be invalid: write an address A or a range A-B";
    return [invalid(field, null, detail)];
  }
  if (spec.ipVersion !== 4 && spec.ipVersion !== 6) return [notSupported(field, spec.ipVersion, ['4', '6'])];
  if (!disabledFamilies.includes(spec.ipVersion)) return [];
  return [forbidden(field, `IPv${spec.ipVersion} is disabled; enable it in the configuration`)];
}

function validateRanges(spec: ReservedIpSpec): FieldError[] {
  return (spec.ips ?? []).flatMap((text, index) => {
    const range = parseIpRange(text);
    const detail = 'invalid IP range format, write a single address A or a range A-B of one family, A not after B';
    if (range === undefined) return [invalid(`spec.ips[${index}]`, text, detail)];
    if (range.first.family === spec.ipVersion) return [];
    const other = `it is not IPv${spec.ipVersion ?? 0}: keep the other family in another SpiderReservedIP`;
    return [invalid(`spec.ips[${index}]`, text, other)];
  });
}
