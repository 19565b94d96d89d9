/** Every way to limit that a kernel offers, on the pod's interface or an ifb beside it. The product's own ways are among them. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { hasErrorCode } from '../src/core/error.ts';
import { applyBandwidth, type Shaper, shapersBestFirst } from '../src/datapath/shaper.ts';
import type { TestPair } from '../src/datapath/test-bed.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { attachProgram } from './bandwidth-programs.ts';

export type Direction = 'egress' | 'ingress';

interface Place {
  readonly device: string;
  readonly rateBps: number;
}

export interface Mechanism {
  readonly name: string;
  /** As the product does it, with the first of these that the kernel has. */
  readonly ladder?: readonly Shaper[];
  /** Debian's CNI plugin on a veth pair (bandwidth-plugin.ts). */
  readonly plugin?: { readonly burstBits: (rateBps: number) => number };
  /** Arguments of tc, line by line. */
  readonly tc?: (place: Place) => readonly string[];
  /** On the device's egress before its qdisc, or in the way of what arrives. */
  readonly program?: { readonly name: 'edt' | 'police'; readonly onIfb: boolean };
}

const frameBytes = 1514;
/** What containerd passes as burst, internal/cri/server/sandbox_run.go: math.MaxUint32. */
const containerdBurstBits = 0xffff_ffff;
const leaves = 64;

const bytesIn = (rateBps: number, ms: number, leastBytes: number): number =>
  Math.max(Math.ceil((rateBps / 8) * (ms / 1000)), leastBytes);
/** A bucket of 20 ms, as the product has it. */
const burst = ({ rateBps }: Place): number => bytesIn(rateBps, 20, 2 * frameBytes);
const tbf = (place: Place, queueBytes: number, more = ''): string =>
  `qdisc replace dev ${place.device} root handle 1: tbf rate ${place.rateBps}bit burst ${burst(place)} limit ${queueBytes} ${more}`;
/** A peak rate that limits nothing makes TBF cut packets larger than the peak's bucket before it queues them. */
const split = `peakrate 100gbit minburst ${2 * frameBytes}`;
/** The same for packets that take longer than half a millisecond. */
const splitLong = ({ rateBps }: Place): string => {
  const bytes = bytesIn(rateBps, 0.5, 2 * frameBytes);
  return bytes > 65_536 ? '' : `peakrate 100gbit minburst ${bytes}`;
};
const child = (place: Place, kind: string): string => `qdisc replace dev ${place.device} parent 1:1 handle 2: ${kind}`;
const htb = (place: Place, leaf: string): string[] => {
  const size = `rate ${place.rateBps}bit ceil ${place.rateBps}bit burst ${burst(place)} cburst ${burst(place)}`;
  return [
    `qdisc replace dev ${place.device} root handle 1: htb default 1`,
    `class add dev ${place.device} parent 1: classid 1:1 htb ${size} quantum ${frameBytes}`,
    child(place, leaf),
  ];
};
const oldQueue = (place: Place): number => burst(place) + bytesIn(place.rateBps, 25, 131_072);
const cake = (options: string) => (place: Place) => [
  `qdisc replace dev ${place.device} root handle 1: cake bandwidth ${place.rateBps}bit raw ${options}`,
];
const hashedLeaves = (place: Place, parent: string, rateBps: number): string[] => {
  const dev = `dev ${place.device}`;
  const ids = Array.from({ length: leaves }, (_, i) => (i + 1).toString(16));
  const size = `burst ${burst(place)} cburst ${burst(place)} quantum ${frameBytes}`;
  const top = `class add ${dev} parent 1: classid 1:fff htb rate ${rateBps}bit ceil ${rateBps}bit ${size}`;
  const queue = bytesIn(place.rateBps, 25, 10 * frameBytes);
  return [
    `qdisc replace ${dev} ${parent} handle 1: htb default 1`,
    top,
    ...ids.map(
      (id) =>
        `class add ${dev} parent 1:fff classid 1:${id} htb rate ${Math.ceil(rateBps / leaves)}bit ceil ${rateBps}bit ${size}`,
    ),
    ...ids.map((id) => `qdisc add ${dev} parent 1:${id} handle 1${id.padStart(2, '0')}: bfifo limit ${queue}`),
    `filter add ${dev} parent 1: protocol all prio 1 bpf obj ${join(packageRoot(), 'bpf', 'build', 'bench.bpf.o')} sec tc/flow_leaf`,
  ];
};

export const mechanisms: readonly Mechanism[] = [
  { name: 'sluice', ladder: shapersBestFirst },
  ...shapersBestFirst.map((shaper) => ({ name: `sluice ${shaper}`, ladder: [shaper] })),
  { name: 'no limit' },
  { name: 'bandwidth plugin', plugin: { burstBits: () => containerdBurstBits } },
  { name: 'bandwidth plugin, 20 ms', plugin: { burstBits: (rateBps) => Math.max(rateBps / 50, 16 * frameBytes) } },
  { name: 'tbf, queue 25 ms + burst', tc: (place) => [tbf(place, oldQueue(place))] },
  { name: 'tbf, queue 10 ms', tc: (place) => [tbf(place, bytesIn(place.rateBps, 10, 131_072))] },
  { name: 'tbf split, queue 10 ms', tc: (place) => [tbf(place, bytesIn(place.rateBps, 10, 10 * frameBytes), split)] },
  { name: 'tbf + fq_codel', tc: (place) => [tbf(place, oldQueue(place)), child(place, 'fq_codel')] },
  { name: 'tbf split + fq_codel', tc: (place) => [tbf(place, oldQueue(place), split), child(place, 'fq_codel')] },
  {
    name: 'tbf split-long + fq_codel',
    tc: (place) => [tbf(place, oldQueue(place), splitLong(place)), child(place, 'fq_codel')],
  },
  { name: 'tbf + cake', tc: (place) => [tbf(place, oldQueue(place)), child(place, 'cake raw')] },
  {
    name: 'tbf + cake no-split-gso',
    tc: (place) => [tbf(place, oldQueue(place)), child(place, 'cake raw no-split-gso')],
  },
  { name: 'htb + pfifo', tc: (place) => htb(place, 'pfifo limit 100') },
  { name: 'htb + fq_codel', tc: (place) => htb(place, 'fq_codel') },
  { name: 'htb + fq', tc: (place) => htb(place, 'fq') },
  { name: 'htb + cake', tc: (place) => htb(place, 'cake raw') },
  { name: 'htb 64 leaves', tc: (place) => hashedLeaves(place, 'root', place.rateBps) },
  { name: 'cake', tc: cake('') },
  { name: 'cake rtt 10ms', tc: cake('rtt 10ms') },
  { name: 'cake no-split-gso', tc: cake('no-split-gso') },
  {
    name: 'edt + fq',
    program: { name: 'edt', onIfb: true },
    tc: ({ device }) => [`qdisc replace dev ${device} root handle 1: fq`],
  },
  { name: 'edt', program: { name: 'edt', onIfb: true } },
  { name: 'police 1 s', program: { name: 'police', onIfb: false } },
];

export function mechanismNamed(name: string): Mechanism {
  const found = mechanisms.find((mechanism) => mechanism.name === name);
  if (found === undefined) throw new RangeError(`no mechanism ${name}`);
  return found;
}

function tcIn(netns: string, line: string): void {
  execFileSync('nsenter', [`--net=${netns}`, 'tc', ...line.trim().split(/\s+/)], { stdio: 'pipe' });
}

/** Limits what the pod sends or receives. False when the kernel has not got the mechanism. */
export function install(pair: TestPair, mechanism: Mechanism, direction: Direction, rateBps: number): boolean {
  if (mechanism.ladder !== undefined) return applyOurs(pair, mechanism.ladder, direction, rateBps);
  const onIfb = direction === 'ingress' && mechanism.program?.onIfb !== false;
  const device = onIfb ? 'ifb0' : 'eth0';
  try {
    if (onIfb && mechanism.name !== 'no limit') {
      pair.run('pod', 'ip', 'link', 'add', 'ifb0', 'type', 'ifb');
      pair.run('pod', 'ip', 'link', 'set', 'ifb0', 'up');
      tcIn(pair.pod, 'qdisc add dev eth0 clsact');
    }
    for (const line of mechanism.tc?.({ device, rateBps }) ?? []) tcIn(pair.pod, line);
    const { program } = mechanism;
    if (program !== undefined) {
      const hook = direction === 'ingress' && !program.onIfb ? 'ingress' : 'egress';
      attachProgram({ netns: pair.pod, device, hook, program: program.name, rateBps });
    }
    if (onIfb && mechanism.name !== 'no limit')
      tcIn(
        pair.pod,
        'filter add dev eth0 ingress protocol all prio 9 u32 match u32 0 0 action mirred egress redirect dev ifb0',
      );
    return true;
  } catch (error) {
    const text = String((error as { stderr?: Buffer }).stderr ?? error);
    if (/unknown|not found|No such file|Specified qdisc kind/i.test(text)) return false;
    throw new Error(`${mechanism.name}, ${direction}: ${text}`, { cause: error });
  }
}

function applyOurs(pair: TestPair, ladder: readonly Shaper[], direction: Direction, rateBps: number): boolean {
  const limit = direction === 'egress' ? { egressBps: rateBps } : { ingressBps: rateBps };
  try {
    applyBandwidth({ netns: pair.pod, interfaceName: pair.interfaceName, ladder, ...limit });
    return true;
  } catch (error) {
    if (hasErrorCode(error, 'unsupported_kernel')) return false;
    throw error;
  }
}
