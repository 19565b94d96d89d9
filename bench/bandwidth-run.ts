/** Runs cases of the bandwidth suite on the kernel that this process is on. */
import { release } from 'node:os';
import { formatErrorChain } from '../src/core/error.ts';
import { address, TestPair } from '../src/datapath/test-bed.ts';
import { type Case, rateBpsOf, type Result } from './bandwidth-case.ts';
import { type Load, measure } from './bandwidth-load.ts';
import { install, mechanismNamed } from './bandwidth-mechanisms.ts';
import { PluginBed } from './bandwidth-plugin.ts';
import { caseName, resultLine } from './bandwidth-rows.ts';

export interface Run {
  readonly results: readonly Result[];
  /** A sentence each: one case that fails does not take an hour's others with it. */
  readonly failures: readonly string[];
}

/** Leaves out what the kernel has not got. */
export async function runCases(cases: readonly Case[], log: (line: string) => void): Promise<Run> {
  const [results, failures]: [Result[], string[]] = [[], []];
  for (const one of cases) {
    try {
      const result = await runCase(one);
      if (result === undefined) continue;
      log(resultLine(result));
      results.push(result);
    } catch (error) {
      failures.push(`${caseName(one)}: ${formatErrorChain(error)}`);
      log(`failed: ${failures.at(-1)}`);
    }
  }
  return { results, failures };
}

/** Undefined when the kernel has not got the mechanism. */
async function runCase(one: Case): Promise<Result | undefined> {
  const mechanism = mechanismNamed(one.mechanism);
  const rateBps = rateBpsOf(one);
  using bed =
    mechanism.plugin === undefined
      ? new TestPair(one.link, one.place)
      : new PluginBed({ direction: one.direction, rateBps, burstBits: mechanism.plugin.burstBits(rateBps) });
  if (bed instanceof TestPair && !install(bed, mechanism, one.direction, rateBps)) return undefined;
  const [sender, receiver, receiverAddress] =
    one.direction === 'egress' ? [bed.pod, bed.peer, address.peer4] : [bed.peer, bed.pod, address.pod4];
  const path = { sender, receiver, receiverAddress, pinger: bed.pod, pingAddress: address.peer4 };
  const found = await measure(path, loadOf(one.load, rateBps), one.seconds, rateBps);
  return { ...one, kernel: release(), found };
}

/** One iperf3 can send about this much in datagrams of a frame each; beyond, IP cuts larger ones into frames. */
const mostBpsOfFrames = 500e6;
const fragmentedBytes = 32_768;

function loadOf(name: string, rateBps: number): Load {
  const [, protocol, count = ''] = /^(tcp|udp|small)(\d*)$/.exec(name) ?? [];
  if (protocol === undefined) throw new RangeError(`no load ${name}: tcpN, udpN or smallN`);
  const flows = Number(count === '' ? 1 : count);
  if (protocol === 'tcp') return { protocol, flows };
  const offeredBps = 2 * rateBps;
  const datagramBytes = protocol === 'small' ? 64 : offeredBps > mostBpsOfFrames ? fragmentedBytes : undefined;
  return { protocol: 'udp', flows, offeredBps, ...(datagramBytes === undefined ? {} : { datagramBytes }) };
}
