import { z } from 'zod';
import { spiderAnnotations, spiderErrors } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { SluiceError } from '../core/error.ts';
import type { IpFamily } from '../core/ip.ts';
import { compareText } from '../core/labels.ts';
import { poolFamily } from './pool-addresses.ts';
import { compileWildcard, isWildcard } from './wildcard.ts';

/**
 * Which pools an interface asks for. The first source that is present wins completely: pod annotation `ippools`,
 * pod annotation `ippool`, namespace annotations, CNI configuration, cluster default pools. A source whose pools
 * turn out full or unfit is not followed by the next one.
 */

type Annotations = Readonly<Record<string, string>> | undefined;

export interface SelectionInput {
  readonly podAnnotations: Annotations;
  readonly namespaceAnnotations: Annotations;
  /** default_ipv4_ippool, default_ipv6_ippool of the CNI configuration. */
  readonly confIpv4: readonly string[] | undefined;
  readonly confIpv6: readonly string[] | undefined;
  readonly interface: string;
  /** Its place among the pod's, eth0 is 0: asked for when a list names no interfaces. */
  readonly interfaceIndex: () => number;
}

export interface Selection {
  /** For messages: "pod annotation ipam.spidernet.io/ippool". */
  readonly source: string;
  /** Names or wildcards; absent when the family is not asked for. */
  readonly ipv4?: readonly string[];
  readonly ipv6?: readonly string[];
  /** No default route from the pool's gateway. */
  readonly cleanGateway: boolean;
}

/** Undefined: the cluster default pools. Throws when an annotation is malformed. */
export function selectPools(input: SelectionInput): Selection | undefined {
  return fromPodList(input) ?? fromPod(input) ?? fromNamespace(input) ?? fromConf(input);
}

const namesSchema = z.array(z.string().min(1));
const poolSchema = z.object({ ipv4: namesSchema.optional(), ipv6: namesSchema.optional() });
const poolListSchema = z.array(
  poolSchema.extend({ interface: z.string().optional(), cleangateway: z.boolean().optional() }),
);

function fromPodList({
  podAnnotations,
  interface: interfaceName,
  interfaceIndex,
}: SelectionInput): Selection | undefined {
  const key = spiderAnnotations.ippools;
  const elements = parseAnnotation('Pod', key, podAnnotations, poolListSchema);
  if (elements === undefined) return undefined;
  if (elements.length === 0) throw wrongInput('Pod', key, 'value requires at least one item');
  const names = elements.flatMap((element) => (element.interface ? [element.interface] : []));
  if (names.length !== 0 && names.length !== elements.length) {
    throw wrongInput('Pod', key, 'NIC should be either all specified or all unspecified');
  }
  const duplicate = names.find((name, index) => names.indexOf(name) !== index);
  if (duplicate !== undefined) throw wrongInput('Pod', key, `duplicate interface ${duplicate}`);
  const index = names.length > 0 ? names.indexOf(interfaceName) : interfaceIndex();
  const own = elements[index];
  if (own === undefined) throw wrongInput('Pod', key, `interface ${interfaceName} must be specified`);
  return selection(`pod annotation ${key}`, own.ipv4, own.ipv6, own.cleangateway);
}

function fromPod({ podAnnotations }: SelectionInput): Selection | undefined {
  const key = spiderAnnotations.ippool;
  const pools = parseAnnotation('Pod', key, podAnnotations, poolSchema);
  return pools && selection(`pod annotation ${key}`, pools.ipv4, pools.ipv6);
}

function fromNamespace({ namespaceAnnotations }: SelectionInput): Selection | undefined {
  const ipv4 = parseAnnotation('Namespace', spiderAnnotations.defaultIpv4Pool, namespaceAnnotations, namesSchema);
  const ipv6 = parseAnnotation('Namespace', spiderAnnotations.defaultIpv6Pool, namespaceAnnotations, namesSchema);
  return isAbsent(ipv4) && isAbsent(ipv6) ? undefined : selection('namespace annotation', ipv4, ipv6);
}

function fromConf({ confIpv4, confIpv6 }: SelectionInput): Selection | undefined {
  return isAbsent(confIpv4) && isAbsent(confIpv6) ? undefined : selection('CNI configuration', confIpv4, confIpv6);
}

function isAbsent(names: readonly string[] | undefined): boolean {
  return names === undefined || names.length === 0;
}

function selection(
  source: string,
  ipv4: readonly string[] | undefined,
  ipv6: readonly string[] | undefined,
  cleanGateway = false,
): Selection {
  return { source, ...(isAbsent(ipv4) ? {} : { ipv4 }), ...(isAbsent(ipv6) ? {} : { ipv6 }), cleanGateway };
}

/** The annotation's value, checked; undefined when it is not there. */
export function parseAnnotation<T>(
  kind: 'Pod' | 'Namespace',
  key: string,
  annotations: Annotations,
  schema: z.ZodType<T>,
): T | undefined {
  const text = annotations?.[key];
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrongInput(kind, key, error instanceof Error ? error.message : 'not JSON');
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw wrongInput(
    kind,
    key,
    parsed.error.issues.map(({ path, message }) => `${path.join('.')} ${message}`).join('; '),
  );
}

function wrongInput(kind: string, key: string, what: string): SluiceError {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'select pools from',
    object: `annotation ${key}`,
    what: `${spiderErrors.wrongInput}, invalid format of ${kind} annotation '${key}': ${what}`,
    remedy: `correct the annotation ${key} of the ${kind}`,
  });
}

/**
 * Literal names stay in place, wildcards expand to the pools of the family they match, in name order.
 * `missing` are literal names no pool has; the caller may know better than its cache.
 */
export function expandNames(
  names: readonly string[],
  family: IpFamily,
  pools: readonly SpiderIPPool[],
): { names: string[]; duplicates: string[]; malformed: string[] } {
  const expanded: string[] = [];
  const malformed: string[] = [];
  for (const name of names) {
    if (!isWildcard(name)) {
      expanded.push(name);
      continue;
    }
    const matches = compileWildcard(name);
    if (matches === undefined) malformed.push(name);
    else
      expanded.push(...poolNamesOf(pools, family).filter((poolName) => matches(poolName) && !names.includes(poolName)));
  }
  const literals = names.filter((name) => !isWildcard(name));
  const duplicates = literals.filter((name, index) => literals.indexOf(name) !== index);
  return { names: [...new Set(expanded)], duplicates, malformed };
}

function poolNamesOf(pools: readonly SpiderIPPool[], family: IpFamily): string[] {
  const ofFamily = pools.filter((pool) => poolFamily(pool.spec) === family);
  return ofFamily.map((pool) => pool.metadata.name ?? '').sort(compareText);
}

/** Pools with `spec.default`, in name order. */
export function defaultPoolNames(pools: readonly SpiderIPPool[], family: IpFamily): string[] {
  return poolNamesOf(
    pools.filter((pool) => pool.spec.default === true),
    family,
  );
}
