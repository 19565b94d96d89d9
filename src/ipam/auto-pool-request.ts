import { z } from 'zod';
import { spiderAnnotations, spiderErrors } from '../api/spider.ts';
import { SluiceError } from '../core/error.ts';
import type { AutoPoolSlot } from './auto-pool.ts';
import { firstInterface } from './allocated-ips.ts';

/** What a pod template's annotations ask for: pools made for the application, out of which subnets and how large. */

export interface AutoPoolRequest {
  /** One pool each, in the order of the annotation, IPv4 before IPv6. */
  readonly slots: readonly (AutoPoolSlot & { readonly subnet: string })[];
  readonly size: AutoPoolSize;
  /** Whether the pools go with the application. */
  readonly reclaim: boolean;
}

export type AutoPoolSize =
  | { readonly kind: 'fixed'; readonly count: number }
  /** So many more than the application has pods. */
  | { readonly kind: 'flexible'; readonly extra: number };

const elementSchema = z.looseObject({
  interface: z.string().optional(),
  ipv4: z.array(z.string()).optional(),
  ipv6: z.array(z.string()).optional(),
});

type Element = z.infer<typeof elementSchema>;

/** Undefined when no annotation names a subnet. `defaultExtra`: clusterSubnetDefaultFlexibleIPNumber. */
export function parseAutoPoolRequest(
  annotations: Readonly<Record<string, string>>,
  defaultExtra: number,
): AutoPoolRequest | undefined {
  const key = [spiderAnnotations.subnets, spiderAnnotations.subnet].find((name) => annotations[name] !== undefined);
  if (key === undefined) return undefined;
  const schema = key === spiderAnnotations.subnets ? z.array(elementSchema) : elementSchema.transform((one) => [one]);
  const elements = parseJson(key, annotations[key] ?? '', schema);
  return {
    slots: slotsOf(key, elements),
    size: parseSize(annotations[spiderAnnotations.poolIpNumber], defaultExtra),
    reclaim: parseReclaim(annotations[spiderAnnotations.poolReclaim]),
  };
}

/** Number of addresses for an application of so many pods. */
export function poolSize(size: AutoPoolSize, podCount: number): number {
  return size.kind === 'fixed' ? size.count : podCount + size.extra;
}

function slotsOf(key: string, elements: readonly Element[]): AutoPoolRequest['slots'] {
  const slots = elements.flatMap((element, index) => {
    // Unnamed elements are the interfaces in their order, as in the pool annotations.
    const name = element.interface || (index === 0 ? firstInterface : `net${index}`);
    const own = ([4, 6] as const).flatMap((family) => {
      const subnet = (family === 4 ? element.ipv4 : element.ipv6)?.[0];
      return subnet === undefined ? [] : [{ interface: name, family, subnet }];
    });
    if (own.length === 0 || own.some(({ subnet }) => subnet === '')) {
      throw wrongInput(key, `element ${index} names no subnet`, 'write "ipv4":["subnet"], "ipv6":["subnet"] or both');
    }
    return own;
  });
  const names = slots.map((slot) => `${slot.interface}/${slot.family}`);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (slots.length === 0) throw wrongInput(key, 'value requires at least one item', 'name a subnet for each interface');
  if (twice !== undefined)
    throw wrongInput(key, `duplicate interface ${twice.split('/')[0] ?? ''}`, 'name each interface once');
  return slots;
}

function parseSize(text: string | undefined, defaultExtra: number): AutoPoolSize {
  if (text === undefined) return { kind: 'flexible', extra: defaultExtra };
  const match = /^(\+?)(\d{1,9})$/.exec(text.trim());
  if (match === null) {
    const remedy = 'write "5" for five addresses, or "+1" for one more than there are replicas';
    throw wrongInput(spiderAnnotations.poolIpNumber, `"${text}" is neither a number nor "+" and a number`, remedy);
  }
  const count = Number(match[2]);
  return match[1] === '+' ? { kind: 'flexible', extra: count } : { kind: 'fixed', count };
}

function parseReclaim(text: string | undefined): boolean {
  if (text === undefined || text === 'true') return true;
  if (text === 'false') return false;
  throw wrongInput(spiderAnnotations.poolReclaim, `"${text}" is neither true nor false`, 'write "true" or "false"');
}

function parseJson<T>(key: string, text: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    const example =
      key === spiderAnnotations.subnet
        ? '{"ipv4":["subnet-v4"]}'
        : '[{"interface":"eth0","ipv4":["subnet-v4"]},{"interface":"net1","ipv4":["other-v4"]}]';
    throw wrongInput(key, 'it is not the JSON it should be', `write it as ${example}`, cause);
  }
}

function wrongInput(key: string, what: string, remedy: string, cause?: unknown): SluiceError {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'read',
    object: `pod annotation '${key}'`,
    what: `${spiderErrors.wrongInput}, invalid format of Pod annotation '${key}': ${what}`,
    remedy,
    cause,
  });
}
