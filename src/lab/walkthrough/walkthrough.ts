/**
 * The walkthrough (docs/guides/walkthrough.md), step by step on a running lab, with every claim measured on packets.
 * The four proofs: the generated attachment, the two replicas, the bandwidth limits, the network policy.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatErrorChain } from '../../core/error.ts';
import { formatIpRange, ipInRange } from './pool-range.ts';
import type { Cluster, PodView } from './cluster.ts';
import { goodputMbps, httpProbe, pingReplies, type HttpProbe } from './measure.ts';
import type { Report } from './report.ts';
import { eventually } from './wait.ts';

export type WalkthroughLink = 'ipvlan' | 'macvlan';

export interface WalkthroughOptions {
  readonly cluster: Cluster;
  readonly report: Report;
  readonly link: WalkthroughLink;
  /** The folder with the four YAML files and the probes. */
  readonly exampleDir: string;
  /** Where the files as they are applied are written; the caller removes it. */
  readonly scratchDir: string;
  /**
   * Without a limit it must be at least this many times as fast as with one: 50 natively. 3 in the emulated VM, whose CPU is the
   * bound: it follows the host, and what else runs there; 0.4 to 3.5 Gbit/s were seen.
   */
  readonly fullSpeedFactor: number;
}

const limitedMbps = 95;
/** What TCP carries of 100 Mbit/s on the wire with 1500-byte frames is 95 Mbit/s. */
const goodput = { low: 93, high: 97 };
const measureSeconds = 10;
const podsTimeoutMs = 180_000;
const testSelector = 'app=test';

interface Probes {
  readonly a: PodView;
  readonly b: PodView;
}

export async function runWalkthrough(options: WalkthroughOptions): Promise<void> {
  const files = prepareFiles(options);
  await step(options, 'the attachment', () => proveAttachment(options, files));
  const pods = await step(options, 'the pods', () => provePods(options, files));
  if (pods === undefined) return;
  const probes = await step(options, 'the probe pods', () => startProbes(options, files));
  if (probes === undefined) return;
  await step(options, 'the bandwidth limits', () => proveBandwidth(options, pods, probes));
  await step(options, 'the network policy', () => provePolicy(options, files, pods, probes));
}

/** A step that throws is one failed check; the steps after it are tried where they make sense. */
async function step<T>(options: WalkthroughOptions, what: string, act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    options.report.failure(what, formatErrorChain(error));
    return undefined;
  }
}

interface Files {
  readonly path: (name: string) => string;
}

/** The files as they are for ipvlan; for macvlan the kind and the attachment's name change, nothing else. */
function prepareFiles(options: WalkthroughOptions): Files {
  const dir = options.scratchDir;
  mkdirSync(dir, { recursive: true });
  for (const name of ['1-multus-config', '2-ippool', '3-deployment', '4-networkpolicy', 'probes']) {
    const text = readFileSync(join(options.exampleDir, `${name}.yaml`), 'utf8');
    writeFileSync(join(dir, `${name}.yaml`), options.link === 'ipvlan' ? text : asMacvlan(text));
  }
  return { path: (name) => join(dir, `${name}.yaml`) };
}

function asMacvlan(text: string): string {
  return text
    .replace('cniType: ipvlan', 'cniType: macvlan')
    .replace('  ipvlan:\n', '  macvlan:\n')
    .replaceAll('ipvlan-conf', 'macvlan-conf');
}

/** The string of the walkthrough's sample NetworkAttachmentDefinition; `mode` is macvlan's own key. */
export function expectedConfig(link: WalkthroughLink): string {
  const mode = link === 'macvlan' ? '"mode":"bridge",' : '';
  return (
    `{"cniVersion":"0.3.1","name":"spidernet-chainer","plugins":[{"type":"${link}","master":"ens192",${mode}"ipam":{"type":"spiderpool",` +
    '"default_ipv4_ippool":["ens192-v4"]}},{"type":"cilium-cni"},{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}]}'
  );
}

async function proveAttachment(options: WalkthroughOptions, files: Files): Promise<void> {
  const { cluster, report, link } = options;
  report.step(
    'kubectl apply -f 1-multus-config.yaml, 2-ippool.yaml',
    `The interface kind, the chained plugins and the addresses that ${link} pods get.`,
  );
  report.detail(await cluster.apply(files.path('1-multus-config')));
  report.detail(await cluster.apply(files.path('2-ippool')));
  const find = (): Promise<string | undefined> => cluster.attachmentConfig('kube-system', `${link}-conf`);
  const config = (await eventually('the NetworkAttachmentDefinition', 60_000, find)) ?? '';
  report.detail(`spec.config: ${config}`);
  const expected = expectedConfig(link);
  report.check({
    claim: 'the generated attachment equals the walkthrough’s, byte for byte',
    measured: config === expected ? `${Buffer.byteLength(config)} equal bytes` : config,
    expected: `${Buffer.byteLength(expected)} equal bytes`,
    passed: config === expected,
  });
}

async function provePods(options: WalkthroughOptions, files: Files): Promise<readonly [PodView, PodView]> {
  const { cluster, report } = options;
  report.step(
    'kubectl apply -f 3-deployment.yaml',
    'Two pods on the attachment, limited to 100M in each direction by annotations.',
  );
  report.detail(await cluster.apply(files.path('3-deployment')));
  const [first, second] = await readyPods(cluster, testSelector, 2);
  if (first === undefined || second === undefined) throw new Error('two pods were expected');
  for (const pod of [first, second]) report.detail(`${pod.name}  ${pod.ip ?? '-'}  ${pod.node ?? '-'}`);
  report.check({
    claim: 'two replicas, one on each node',
    measured: `${first.node} and ${second.node}`,
    expected: 'two nodes',
    passed: first.node !== second.node,
  });
  const addresses = [first.ip ?? '', second.ip ?? ''];
  report.check({
    claim: 'both addresses come from the pool',
    measured: addresses.join(', '),
    expected: formatIpRange(),
    passed: addresses.every(ipInRange) && addresses[0] !== addresses[1],
  });
  return [first, second];
}

async function readyPods(cluster: Cluster, selector: string, count: number): Promise<PodView[]> {
  return eventually(`${count} ready pods of ${selector}`, podsTimeoutMs, async () => {
    const pods = await cluster.pods('default', selector);
    return pods.length === count && pods.every((pod) => pod.ready && pod.ip !== undefined) ? pods : undefined;
  });
}

async function startProbes(options: WalkthroughOptions, files: Files): Promise<Probes> {
  const { cluster, report } = options;
  report.step(
    'kubectl apply -f probes.yaml',
    'Two more pods, without limits and not selected by the policy, to measure against.',
  );
  report.detail(await cluster.apply(files.path('probes')));
  const pods = await readyPods(cluster, 'app=probe', 2);
  const [a, b] = [...pods].sort((x, y) => x.name.localeCompare(y.name));
  if (a === undefined || b === undefined) throw new Error('two probe pods were expected');
  return { a, b };
}

async function proveBandwidth(
  options: WalkthroughOptions,
  pods: readonly [PodView, PodView],
  probes: Probes,
): Promise<void> {
  const { cluster, report } = options;
  report.step(
    'iperf3 between the pods',
    'First the walkthrough’s own test, then each direction alone, then without limits.',
  );
  const measure = async (claim: string, client: PodView, server: PodView, limited: boolean): Promise<void> => {
    const least = limited ? goodput.low : limitedMbps * options.fullSpeedFactor;
    const most = limited ? goodput.high : Infinity;
    const once = (): Promise<number> => goodputMbps(cluster, client, server, server.ip ?? '', measureSeconds);
    const fits = (mbps: number): boolean => mbps >= least && mbps <= most;
    const values = [await once()];
    // The machine may have had better to do for a moment, the agent too: one of three decides, and all are shown.
    while (values.length < 3 && !values.some(fits)) values.push(await once());
    const last = values.at(-1) ?? 0;
    const all = values.length > 1 ? ` (last of ${values.map((mbps) => mbps.toFixed(1)).join(', ')})` : '';
    report.check({
      claim,
      measured: `${last.toFixed(1)} Mbit/s${all}`,
      expected: limited ? `${goodput.low}–${goodput.high} Mbit/s` : `at least ${least} Mbit/s`,
      passed: fits(last),
    });
  };
  const egress = 'kubernetes.io/egress-bandwidth';
  const ingress = 'kubernetes.io/ingress-bandwidth';
  await measure('replica to replica, both limited', pods[0], pods[1], true);
  await measure('without annotations', probes.a, probes.b, false);
  await cluster.annotate(probes.a, { [egress]: '100M' });
  await measureSettled(() =>
    measure('only the sender’s egress limited (annotated while it runs)', probes.a, probes.b, true),
  );
  await measure('the other direction of that pod stays free', probes.b, probes.a, false);
  await cluster.annotate(probes.a, { [egress]: null, [ingress]: '100M' });
  await measureSettled(() => measure('only the receiver’s ingress limited', probes.b, probes.a, true));
  await measure('the other direction of that pod stays free', probes.a, probes.b, false);
  await cluster.annotate(probes.a, { [ingress]: null });
}

/** An annotation takes effect when the agent has seen it: well under a second, more in the emulated VM. */
async function measureSettled(measure: () => Promise<void>): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 3000));
  await measure();
}

async function provePolicy(
  options: WalkthroughOptions,
  files: Files,
  pods: readonly [PodView, PodView],
  probes: Probes,
): Promise<void> {
  const { cluster, report } = options;
  const [subject] = pods;
  const outside = probes.a.node === subject.node ? probes.b : probes.a;
  await expectTraffic(options, 'before the policy', subject, outside, true);
  report.step(
    'kubectl apply -f 4-networkpolicy.yaml',
    'All ingress to the replicas stays allowed, all egress from them is cut.',
  );
  report.detail(await cluster.apply(files.path('4-networkpolicy')));
  await eventuallyPinged(cluster, subject, outside, false);
  await expectTraffic(options, 'with the policy', subject, outside, false);
  report.step('kubectl delete -f 4-networkpolicy.yaml', 'Everything returns.');
  report.detail(await cluster.remove(files.path('4-networkpolicy')));
  await eventuallyPinged(cluster, subject, outside, true);
  await expectTraffic(options, 'after the policy', subject, outside, true);
}

async function eventuallyPinged(cluster: Cluster, from: PodView, to: PodView, answered: boolean): Promise<void> {
  await eventually(`ping from ${from.name} to be ${answered ? 'answered' : 'cut'}`, 30_000, async () =>
    (await pingReplies(cluster, from, to.ip ?? '', 1)) > 0 === answered ? true : undefined,
  );
}

/** Egress from the subject (ping and TCP) as told; ingress to it always. */
async function expectTraffic(
  options: WalkthroughOptions,
  when: string,
  subject: PodView,
  outside: PodView,
  egressOpen: boolean,
): Promise<void> {
  const { cluster, report } = options;
  const sent = 5;
  const patience = 3;
  const outPings = await pingReplies(cluster, subject, outside.ip ?? '', sent);
  report.check({
    claim: `${when}: ping out of a replica`,
    measured: `${outPings} of ${sent} answered`,
    expected: egressOpen ? `${sent} of ${sent}` : `0 of ${sent}`,
    passed: outPings === (egressOpen ? sent : 0),
  });
  const outTcp = await httpProbe(cluster, subject, outside, egressOpen ? patience : 1);
  report.check({
    claim: `${when}: TCP out of a replica`,
    measured: outTcp.answered ? 'answered' : unanswered(outTcp, egressOpen),
    expected: egressOpen ? 'answered' : 'no answer',
    passed: outTcp.answered === egressOpen,
  });
  const inPings = await pingReplies(cluster, outside, subject.ip ?? '', sent);
  report.check({
    claim: `${when}: ping into a replica`,
    measured: `${inPings} of ${sent} answered`,
    expected: `${sent} of ${sent}`,
    passed: inPings === sent,
  });
  const inTcp = await httpProbe(cluster, outside, subject, patience);
  report.check({
    claim: `${when}: HTTP into a replica`,
    measured: inTcp.answered ? 'answered with its name' : unanswered(inTcp, true),
    expected: 'answered with its name',
    passed: inTcp.answered,
  });
}

function unanswered(probe: HttpProbe, expectedAnswer: boolean): string {
  return expectedAnswer ? `no answer (${probe.ended})` : 'no answer';
}
