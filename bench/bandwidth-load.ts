/** One measurement of a limit: traffic that wants more than it, a ping beside it, and what arrived, over time. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { Netns } from '../src/kernel/index.ts';
import { percentile } from './report.ts';
import { busyCpuSeconds, trafficCpuSeconds } from './traffic-cpu.ts';
import { readWire } from './wire.ts';

export interface Load {
  readonly protocol: 'tcp' | 'udp';
  readonly flows: number;
  /** UDP: all flows together. */
  readonly offeredBps?: number;
  /** UDP: payload of a datagram; default: what fills a frame. */
  readonly datagramBytes?: number;
}

/** Paths of namespaces, and an address of the receiver's. */
export interface Path {
  readonly sender: string;
  readonly receiver: string;
  readonly receiverAddress: string;
  /** Who pings whom beside the traffic; the pod does. */
  readonly pinger: string;
  readonly pingAddress: string;
}

export interface Sample {
  /** Since the traffic began. */
  readonly atS: number;
  readonly value: number;
}

export interface Measurement {
  /** Bit/s on the wire. */
  readonly firstSecondBps: number;
  readonly wireBps: number;
  readonly retransmits: number;
  /** ms; `idle`: before the traffic. */
  readonly pingIdle: readonly Sample[];
  readonly pingLoaded: readonly Sample[];
  /** Of the kernel and of who sends and receives, for each Gbit that arrived. */
  readonly cpuSecondsPerGbit: number;
  /** 0 … 1, of all CPUs, for whatever. */
  readonly cpuBusy: number;
  readonly rate: readonly Sample[];
}

const sampleMs = 100;
const rateStepS = 0.2;
const pingIntervalMs = 20;
/** Traffic runs this much longer than is measured, so that its end is not. */
const marginS = 0.5;
const idleS = 1;
const startTimeoutMs = 30_000;
const endTimeoutS = 15;

/** `limitBps`: about what arrives; tells the bulk's begin from iperf3's handshake. */
export async function measure(path: Path, load: Load, seconds: number, limitBps: number): Promise<Measurement> {
  const pingIdle = await ping(path, idleS);
  using receiver = Netns.openPath(path.receiver);
  const port = randomInt(20_000, 30_000);
  const server = await startServer(path.receiver, port);
  try {
    const client = startClient(path, load, port, seconds + marginS);
    const traffic = [server.pid, client.pid];
    const meter = new Meter(receiver);
    const begun = await meter.untilTraffic(Math.min(3000, limitBps * 0.0008), client.ended);
    const [cpuBefore, busyBefore] = [trafficCpuSeconds(traffic), busyCpuSeconds()];
    const pinging = ping(path, seconds);
    await meter.sample(begun, seconds, client.ended);
    const cpuSeconds = trafficCpuSeconds(traffic) - cpuBefore;
    const cpuBusy = (busyCpuSeconds() - busyBefore) / (cpus().length * seconds);
    const bits = meter.bitsBetween(0, seconds);
    const pingLoaded = await pinging;
    const { retransmits } = await client.result;
    return {
      ...{ firstSecondBps: meter.bitsBetween(0, 1), wireBps: bits / seconds, retransmits },
      ...{ pingIdle, pingLoaded, cpuSecondsPerGbit: cpuSeconds / (bits / 1e9), cpuBusy, rate: meter.rates(seconds) },
    };
  } finally {
    server.kill('SIGKILL');
  }
}

export function pingPercentile(samples: readonly Sample[], p: number): number {
  return percentile(
    samples.map(({ value }) => value),
    p,
  );
}

/** What arrived, over time. */
class Meter {
  readonly #receiver: Netns;
  readonly #counted: { readonly ms: number; readonly bytes: number }[] = [];
  #begunMs = 0;

  constructor(receiver: Netns) {
    this.#receiver = receiver;
    this.#count();
  }

  /** The bulk begins with the first 10 ms in which more than a handshake arrives. Resolves with when that was. */
  async untilTraffic(leastBytes: number, failed: Promise<never>): Promise<number> {
    for (const endMs = performance.now() + startTimeoutMs; ;) {
      await Promise.race([sleep(10), failed]);
      if (performance.now() > endMs) throw new Error('no traffic arrives');
      const before = this.#counted.at(-1);
      const now = this.#count();
      if (before === undefined || now.bytes - before.bytes < leastBytes) {
        this.#counted.splice(0, this.#counted.length - 1);
        continue;
      }
      this.#begunMs = before.ms;
      return this.#begunMs;
    }
  }

  async sample(begunMs: number, seconds: number, failed: Promise<never>): Promise<void> {
    for (let next = begunMs + sampleMs; next <= begunMs + seconds * 1000 + 1; next += sampleMs) {
      await Promise.race([sleep(next - performance.now()), failed]);
      this.#count();
    }
  }

  /** Seconds since the traffic began; between two counts as if it had been even. */
  bitsBetween(fromS: number, toS: number): number {
    return (this.#bytesAt(toS) - this.#bytesAt(fromS)) * 8;
  }

  /** In even steps: on a busy machine the counts are not. */
  rates(seconds: number): Sample[] {
    return Array.from({ length: Math.round(seconds / rateStepS) }, (_, step) => {
      const [from, to] = [step * rateStepS, (step + 1) * rateStepS];
      return { atS: (from + to) / 2, value: this.bitsBetween(from, to) / rateStepS };
    });
  }

  #bytesAt(second: number): number {
    const ms = this.#begunMs + second * 1000;
    const after = this.#counted.findIndex((count) => count.ms >= ms);
    const [a, b] = after === -1 ? this.#counted.slice(-2) : this.#counted.slice(Math.max(0, after - 1), after + 1);
    if (a === undefined) return 0;
    if (b === undefined || b.ms === a.ms) return a.bytes;
    return a.bytes + ((b.bytes - a.bytes) * (ms - a.ms)) / (b.ms - a.ms);
  }

  #count(): { readonly ms: number; readonly bytes: number } {
    const count = { ms: performance.now(), bytes: readWire(this.#receiver).bytes };
    this.#counted.push(count);
    return count;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}

async function startServer(netns: string, port: number): Promise<ChildProcess> {
  const server = spawn('nsenter', [`--net=${netns}`, 'iperf3', '-s', '-1', '-p', String(port), '--forceflush'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(server.stdout, 'data');
  return server;
}

interface Client {
  readonly pid: number | undefined;
  readonly result: Promise<{ readonly retransmits: number }>;
  /** Rejects when the client fails; never resolves. */
  readonly ended: Promise<never>;
}

function startClient(path: Path, load: Load, port: number, seconds: number): Client {
  const perFlow = Math.ceil((load.offeredBps ?? 0) / load.flows);
  const udp = ['-u', '-b', String(perFlow), ...(load.datagramBytes ? ['-l', String(load.datagramBytes)] : [])];
  const args = [
    ...['iperf3', '-c', path.receiverAddress, '-p', String(port), '-t', String(Math.ceil(seconds)), '-J'],
    ...['-P', String(load.flows), ...(load.protocol === 'udp' ? udp : [])],
  ];
  const child = spawn('nsenter', [`--net=${path.sender}`, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  // The last words of iperf3 go through the limit too, behind its flood.
  const patience = setTimeout(() => child.kill('SIGKILL'), (seconds + endTimeoutS) * 1000);
  const result = once(child, 'close').then(() => {
    clearTimeout(patience);
    return parseResult(output);
  });
  return { pid: child.pid, result, ended: result.then(() => new Promise<never>(() => undefined)) };
}

function parseResult(output: string): { retransmits: number } {
  if (output === '') return { retransmits: Number.NaN };
  const { error, end } = JSON.parse(output) as {
    readonly error?: string;
    readonly end: { readonly sum_sent?: { readonly retransmits?: number } };
  };
  // A control connection that a flood starved is no failure of the measurement.
  if (error !== undefined && !/control socket|server has terminated|unable to/.test(error))
    throw new Error(`iperf3: ${error}`);
  return { retransmits: end.sum_sent?.retransmits ?? 0 };
}

/** Round trips in ms; what was lost is missing. */
async function ping(path: Path, seconds: number): Promise<Sample[]> {
  const count = Math.ceil((seconds * 1000) / pingIntervalMs);
  const size = ['-c', String(count), '-i', String(pingIntervalMs / 1000), '-w', String(Math.ceil(seconds) + 1)];
  const begunS = Date.now() / 1000;
  // It complains about the time stamps of packets that EDT held back.
  const child = spawn('nsenter', [`--net=${path.pinger}`, 'ping', '-n', '-D', ...size, path.pingAddress], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  if (status !== 0 && status !== 1) throw new Error(`ping ended with status ${status ?? 'of a signal'}`);
  return [...output.matchAll(/^\[([\d.]+)\] .*time=([\d.]+) ms/gm)]
    .map(([, atS, ms]) => ({ atS: Number(atS) - Number(ms) / 1000 - begunS, value: Number(ms) }))
    .filter(({ atS }) => atS < seconds); // It is late by a little with each.
}
