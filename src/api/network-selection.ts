/**
 * Which networks a pod asks for: the annotations of the Network Plumbing Working Group's standard
 * (https://github.com/k8snetworkplumbingwg/multi-net-spec, "Network Attachment Selection Annotation") as Multus reads them.
 *
 *   k8s.v1.cni.cncf.io/networks      a list: net1, net2, … beside the default network
 *   v1.multus-cni.io/default-network one: takes the place of the cluster's default network on eth0
 *
 * A value is a comma list of [namespace/]name[@interface], or JSON: an array of the objects below.
 */
import { z } from 'zod';
import { SluiceError } from '../core/error.ts';
import { interfaceNamePattern } from '../core/interface-name.ts';
import { parseIp, parsePrefix } from '../core/ip.ts';
import { multusAnnotations } from './spider.ts';

export interface NetworkSelection {
  readonly namespace: string;
  readonly name: string;
  /** Asked for by the user; the others are called after their place in the list. */
  readonly interface?: string | undefined;
  /** Addresses, with or without prefix length: for plugins with the capability `ips`. */
  readonly ips?: readonly string[] | undefined;
  readonly mac?: string | undefined;
  /** Rates in bit/s, bursts in bit. */
  readonly bandwidth?: SelectedBandwidth | undefined;
  readonly portMappings?: readonly unknown[] | undefined;
  readonly infinibandGuid?: string | undefined;
  readonly deviceId?: string | undefined;
  /** For `args.cni` of each plugin's configuration. */
  readonly cniArgs?: Readonly<Record<string, unknown>> | undefined;
  /** Gateways: the pod's default routes of these families lead through this interface. */
  readonly defaultRoute?: readonly string[] | undefined;
}

export interface SelectedBandwidth {
  readonly ingressRate?: number | undefined;
  readonly ingressBurst?: number | undefined;
  readonly egressRate?: number | undefined;
  readonly egressBurst?: number | undefined;
}

/** A selection with the interface it gets. */
export interface NamedSelection extends NetworkSelection {
  readonly interface: string;
}

/** Whose annotations are read. */
export interface AnnotatedPod {
  readonly namespace: string;
  readonly name: string;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

export const defaultInterface = 'eth0';

/**
 * The pod's additional networks with their interfaces; names without a namespace are of the pod's. The nth is netn, unless it
 * names its interface. Throws SluiceError invalid_resource with the annotation, the field and the remedy.
 */
export function additionalNetworks(pod: AnnotatedPod): NamedSelection[] {
  const annotation = multusAnnotations.networks;
  const text = pod.annotations?.[annotation]?.trim() ?? '';
  if (text === '') return [];
  const source = { annotation, pod };
  const selections = parseSelections(text, pod.namespace, source);
  const named = selections.map((each, index) => ({ ...each, interface: each.interface ?? `net${index + 1}` }));
  rejectDuplicates(named, source);
  rejectSeveralGateways(named, source);
  return named;
}

/**
 * What takes the default network's place on eth0; undefined when nothing does. A name without a namespace is of Multus' own
 * namespace, not of the pod's. Throws as {@link additionalNetworks}.
 */
export function defaultNetwork(pod: AnnotatedPod, multusNamespace: string): NamedSelection | undefined {
  const annotation = multusAnnotations.defaultNetwork;
  const text = pod.annotations?.[annotation]?.trim() ?? '';
  if (text === '') return undefined;
  const source = { annotation, pod };
  const [first, ...others] = parseSelections(text, multusNamespace, source);
  if (first === undefined || others.length > 0)
    throw malformed(source, '', `it names ${others.length + (first ? 1 : 0)} networks`, 'name exactly one network');
  const interfaceName = first.interface ?? defaultInterface;
  if (interfaceName !== defaultInterface) {
    const what = `"${interfaceName}" is asked for, but the default network's interface is ${defaultInterface}`;
    throw malformed(source, 'interface', what, 'leave the interface out');
  }
  return { ...first, interface: interfaceName };
}

interface Source {
  readonly annotation: string;
  readonly pod: AnnotatedPod;
}

function parseSelections(text: string, namespace: string, source: Source): NetworkSelection[] {
  // Multus' own way of telling the two grammars apart.
  const isJson = /[[{"]/.test(text);
  return isJson ? parseJsonList(text, namespace, source) : parseNameList(text, namespace, source);
}

function parseNameList(text: string, namespace: string, source: Source): NetworkSelection[] {
  return text.split(',').map((item, index) => {
    const where = `element ${index + 1}`;
    const [path = '', interfaceName, ...tooMuch] = item.trim().split('@');
    const names = path.split('/');
    if (tooMuch.length > 0 || names.length > 2)
      throw malformed(source, where, `"${item.trim()}" is not [namespace/]name[@interface]`, nameRemedy);
    const [first = '', second] = names;
    return {
      namespace: objectName(second === undefined ? namespace : first, `${where}, namespace`, source),
      name: objectName(second ?? first, `${where}, name`, source),
      ...(interfaceName === undefined ? {} : { interface: checkInterface(interfaceName, where, source) }),
    };
  });
}

const count = z.number().int().nonnegative();
const elementSchema = z.looseObject({
  name: z.string(),
  namespace: z.string().optional(),
  interface: z.string().optional(),
  /** Multus' name for it before 3.2. */
  interfaceRequest: z.string().optional(),
  ips: z.array(z.string()).nullish(),
  mac: z.string().optional(),
  'infiniband-guid': z.string().optional(),
  portMappings: z.array(z.unknown()).nullish(),
  bandwidth: z
    .looseObject({
      ingressRate: count.optional(),
      ingressBurst: count.optional(),
      egressRate: count.optional(),
      egressBurst: count.optional(),
    })
    .nullish(),
  deviceID: z.string().optional(),
  'cni-args': z.record(z.string(), z.unknown()).nullish(),
  'default-route': z.array(z.string()).nullish(),
});
type Element = z.infer<typeof elementSchema>;

function parseJsonList(text: string, namespace: string, source: Source): NetworkSelection[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const what = `it is not JSON: ${cause instanceof Error ? cause.message : 'malformed'}`;
    throw malformed(source, '', what, 'correct the JSON, or write [namespace/]name[@interface], …', cause);
  }
  const parsed = z.array(elementSchema).safeParse(value);
  if (parsed.success) return parsed.data.map((element, index) => fromElement(element, index, namespace, source));
  const issue = parsed.error.issues[0];
  const field = fieldOf(issue?.path ?? []);
  throw malformed(source, field, issue?.message ?? 'malformed', 'write a JSON array of objects with at least "name"');
}

function fieldOf(path: readonly PropertyKey[]): string {
  return path
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
    .join('')
    .replace(/^\./, '');
}

function fromElement(element: Element, index: number, namespace: string, source: Source): NetworkSelection {
  const at = `[${index}]`;
  const interfaceName = element.interface || element.interfaceRequest || undefined;
  const macText = element.mac || undefined;
  checkAddresses(element.ips ?? [], `${at}.ips`, source);
  const gateways = element['default-route'] ?? undefined;
  for (const [n, text] of (gateways ?? []).entries()) {
    if (parseIp(text) === undefined)
      throw malformed(source, `${at}.default-route[${n}]`, `"${text}" is not an IP address`, 'name the gateway');
  }
  if (macText !== undefined && !/^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$/.test(macText))
    throw malformed(source, `${at}.mac`, `"${macText}" is not a MAC address`, 'write it like 0a:1b:2c:3d:4e:5f');
  return {
    namespace: objectName(element.namespace || namespace, `${at}.namespace`, source),
    name: objectName(element.name, `${at}.name`, source),
    interface: interfaceName && checkInterface(interfaceName, `${at}.interface`, source),
    ips: element.ips ?? undefined,
    mac: macText,
    bandwidth: element.bandwidth ?? undefined,
    portMappings: element.portMappings ?? undefined,
    infinibandGuid: element['infiniband-guid'] || undefined,
    deviceId: element.deviceID || undefined,
    cniArgs: element['cni-args'] ?? undefined,
    defaultRoute: gateways,
  };
}

const nameRemedy = 'write <namespace>/<name>, or <name>, of a NetworkAttachmentDefinition, and @<interface> if need be';
/** RFC 1123 subdomain: the names that Kubernetes takes for an attachment. */
const objectNamePattern = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

function objectName(text: string, field: string, source: Source): string {
  if (objectNamePattern.test(text)) return text;
  throw malformed(source, field, `"${text}" is not a NetworkAttachmentDefinition's name`, nameRemedy);
}

function checkInterface(text: string, field: string, source: Source): string {
  if (interfaceNamePattern.test(text)) return text;
  const remedy = 'at most 15 characters without blanks, "/" and ":"';
  throw malformed(source, field, `"${text}" is not an interface's name`, remedy);
}

function checkAddresses(ips: readonly string[], field: string, source: Source): void {
  for (const [index, text] of ips.entries()) {
    if (parseIp(text) !== undefined || parsePrefix(text) !== undefined) continue;
    const remedy = 'write it like 192.168.1.5 or 192.168.1.5/24';
    throw malformed(source, `${field}[${index}]`, `"${text}" is not an IP address`, remedy);
  }
}

function rejectDuplicates(selections: readonly NamedSelection[], source: Source): void {
  const taken = new Set([defaultInterface]);
  for (const { interface: name } of selections) {
    if (taken.has(name)) {
      const remedy = `give each network another interface; ${defaultInterface} is the default network's`;
      throw malformed(source, 'interface', `"${name}" is used twice`, remedy);
    }
    taken.add(name);
  }
}

/** Multus: "does not support ECMP for default-route". */
function rejectSeveralGateways(selections: readonly NamedSelection[], source: Source): void {
  const gateways = selections.flatMap(({ defaultRoute = [] }) => defaultRoute.map(parseIp));
  for (const family of [4, 6]) {
    if (gateways.filter((gateway) => gateway?.family === family).length <= 1) continue;
    const what = `there are several IPv${family} gateways`;
    throw malformed(source, 'default-route', what, `name one gateway of each family in all of the annotation`);
  }
}

function malformed({ annotation, pod }: Source, field: string, what: string, remedy: string, cause?: unknown): Error {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'read annotation',
    object: `${annotation} of pod ${pod.namespace}/${pod.name}`,
    what: field === '' ? what : `${field}: ${what}`,
    remedy,
    cause,
  });
}
