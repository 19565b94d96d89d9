/** Traffic between two namespaces, and what of it is on the wire. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { withNetns } from '../src/kernel/index.ts';
import { packageRoot } from '../src/kernel/package-root.ts';

export interface TrafficCount {
  readonly sent: number;
  readonly answered: number;
  readonly lost: number;
  readonly errors: number;
}

export type TrafficMode = 'echo' | 'udp-ask' | 'udp-fire' | 'tcp-stream';

const emulated = process.env['SLUICE_VM'] === '1';
/** Under emulation even the start of a process takes its time. */
const patienceMs = emulated ? 600_000 : 60_000;
/** How many times slower traffic is sent under emulation, and how long udp-ask waits for an answer: test/traffic-process.mjs. */
export const slowness = emulated ? 10 : 1;
export const answerMs = emulated ? 30_000 : 2_000;

export class Traffic implements Disposable {
  readonly #child: ChildProcess;
  #output = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.on('data', (chunk: Buffer) => (this.#output += chunk.toString()));
  }

  /** Resolves when the traffic runs (when an answer came, for those that ask). */
  static async start(netns: string, mode: TrafficMode, host: string, port: number): Promise<Traffic> {
    const traffic = Traffic.launch(netns, mode, host, port);
    await traffic.ready();
    return traffic;
  }

  /** The same without waiting. */
  static launch(netns: string, mode: TrafficMode, host: string, port: number): Traffic {
    const script = join(packageRoot(), 'test/traffic-process.mjs');
    // The VM's one emulated CPU is the agent's first, as it would be on a node with more of them.
    const priority = emulated ? '19' : '0';
    const args = ['-n', priority, 'nsenter', `--net=${netns}`, process.execPath, script, mode, host, String(port)];
    return new Traffic(spawn('nice', args, { stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  async ready(timeoutMs = patienceMs): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!this.#output.startsWith('ready')) {
      if (this.#child.exitCode !== null) throw new Error('the traffic process ended');
      if (Date.now() > deadline) throw new Error(`no traffic within ${timeoutMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Ends it and answers what it counted. */
  async stop(): Promise<TrafficCount> {
    const ended = once(this.#child, 'close');
    this.#child.kill('SIGTERM');
    await ended;
    return JSON.parse(this.#output.slice(this.#output.indexOf('{'))) as TrafficCount;
  }

  [Symbol.dispose](): void {
    if (this.#child.exitCode === null) this.#child.kill('SIGKILL');
  }
}

/**
 * How many UDP datagrams have arrived in the network namespace for ports on which nobody listens, since the last call. The
 * kernel counts them, so none is missed, however long nobody looks and whatever else is on the wire; a capture's buffer is full
 * after some hundred frames.
 */
export function unheardDatagrams(netns: string): () => number {
  let before = countUnheard(netns);
  return () => {
    const now = countUnheard(netns);
    const since = now - before;
    before = now;
    return since;
  };
}

function countUnheard(netns: string): number {
  const read = (name: string): string => readFileSync(`/proc/thread-self/net/${name}`, 'utf8');
  const [snmp, snmp6] = withNetns(netns, () => [read('snmp'), read('snmp6')] as const);
  const [names, values] = snmp.split('\n').flatMap((line) => (line.startsWith('Udp:') ? [line.split(' ')] : []));
  const ipv4 = Number(values?.[names?.indexOf('NoPorts') ?? -1]);
  const ipv6 = Number(/^Udp6NoPorts\s+(\d+)$/m.exec(snmp6)?.[1]);
  if (Number.isNaN(ipv4 + ipv6)) throw new Error(`no UDP counters in /proc/net/snmp and snmp6 of ${netns}`);
  return ipv4 + ipv6;
}

export interface FlowFilter {
  readonly protocol: 'tcp' | 'udp';
  /** Either the source or the destination. */
  readonly port: number;
  /** Addresses as the frame has them, "10.0.0.10"; IPv6 in hexadecimal without colons. */
  readonly source?: string;
}

const protocolNumbers = { tcp: 6, udp: 17 } as const;

/** Frames of the flow, IPv4 and IPv6 without options or extension headers. */
export function framesOf(frames: readonly Uint8Array[], filter: FlowFilter): Uint8Array[] {
  return frames.filter((frame) => {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const type = view.getUint16(12, false);
    if (type !== 0x0800 && type !== 0x86dd) return false;
    const [protocol, transport] = type === 0x0800 ? [frame[23], 34] : [frame[20], 54];
    if (protocol !== protocolNumbers[filter.protocol]) return false;
    const ports = [view.getUint16(transport, false), view.getUint16(transport + 2, false)];
    if (!ports.includes(filter.port)) return false;
    return filter.source === undefined || sourceOf(frame, type) === filter.source;
  });
}

function sourceOf(frame: Uint8Array, type: number): string {
  if (type === 0x0800) return frame.subarray(26, 30).join('.');
  return Buffer.from(frame.subarray(22, 38)).toString('hex');
}

/** The form of {@link FlowFilter.source}. */
export function sourceText(address: string): string {
  if (!address.includes(':')) return address;
  const [head = '', tail = ''] = address.split('::');
  const words = (text: string): string[] => (text === '' ? [] : text.split(':')).map((word) => word.padStart(4, '0'));
  const [left, right] = [words(head), words(tail)];
  return [...left, ...Array<string>(8 - left.length - right.length).fill('0000'), ...right].join('');
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
