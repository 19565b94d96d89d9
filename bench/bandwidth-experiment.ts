/**
 * The experiment behind src/datapath/shaper.ts (docs/decisions/0007-how-to-limit-bandwidth.md): the ways to limit beside each other, in
 * both directions, on whichever kernel this runs.
 *
 *   node --import tsx bench/bandwidth-experiment.ts [--link macvlan] [--rates 10M,100M] [--mechanisms REGEXP] [--json FILE] …
 */
import { appendFileSync } from 'node:fs';
import { release } from 'node:os';
import { parseArgs } from 'node:util';
import { parseQuantity } from '../src/core/quantity.ts';
import { address, TestPair, type PairLink, type PeerPlace } from '../src/datapath/test-bed.ts';
import { type Load, measure, type Measurement, pingPercentile } from './bandwidth-load.ts';
import { type Direction, install, type Mechanism, mechanisms } from './bandwidth-mechanisms.ts';

interface Case {
  readonly mechanism: Mechanism;
  readonly direction: Direction;
  readonly rateBps: number;
  readonly load: Load;
  readonly gso: boolean;
}

async function run(link: PairLink, place: PeerPlace, one: Case, seconds: number) {
  using pair = new TestPair(link, place);
  if (!one.gso) {
    for (const side of ['pod', 'peer'] as const)
      pair.run(side, 'ip', 'link', 'set', 'eth0', 'gso_max_size', '2000', 'gso_max_segs', '1');
  }
  if (!install(pair, one.mechanism, one.direction, one.rateBps)) return undefined;
  const [sender, receiver, receiverAddress] =
    one.direction === 'egress' ? [pair.pod, pair.peer, address.peer4] : [pair.peer, pair.pod, address.pod4];
  const path = { sender, receiver, receiverAddress, pinger: pair.pod, pingAddress: address.peer4 };
  return await measure(path, one.load, seconds, one.rateBps);
}

const { values: flags } = parseArgs({
  options: {
    link: { type: 'string', default: 'macvlan' },
    place: { type: 'string', default: 'outside' },
    rates: { type: 'string', default: '1M,10M,100M,1G' },
    loads: { type: 'string', default: 'tcp1,tcp8,udp' },
    directions: { type: 'string', default: 'egress,ingress' },
    mechanisms: { type: 'string', default: '.' },
    seconds: { type: 'string', default: '10' },
    gso: { type: 'string', default: 'on' },
    json: { type: 'string' },
  },
});

function loadOf(name: string, rateBps: number): Load {
  const [, protocol = '', count = ''] = /^(tcp|udp|small)(\d*)$/.exec(name) ?? [];
  if (protocol === 'tcp') return { protocol, flows: Number(count || 1) };
  const datagram = protocol === 'small' ? { datagramBytes: 64 } : {};
  return { protocol: 'udp', flows: Number(count || 1), offeredBps: 2 * rateBps, ...datagram };
}

function show(name: string, one: Case, load: string, found: Measurement): string {
  const percent = (bps: number): string => `${((bps / one.rateBps - 1) * 100).toFixed(1)}%`;
  const ms = (p: number, which: 'pingIdle' | 'pingLoaded'): string => pingPercentile(found[which], p).toFixed(2);
  return [
    name.padEnd(26),
    one.direction.padEnd(8),
    `${one.rateBps / 1e6}M`.padEnd(6),
    load.padEnd(7),
    `wire ${(found.wireBps / 1e6).toFixed(2)} ${percent(found.wireBps)}`.padEnd(24),
    `1st s ${percent(found.firstSecondBps)}`.padEnd(15),
    `retr ${found.retransmits}`.padEnd(11),
    `ping ${ms(50, 'pingIdle')} → ${ms(50, 'pingLoaded')} / ${ms(99, 'pingLoaded')} (${found.pingLoaded.length})`.padEnd(
      36,
    ),
    `cpu ${found.cpuSecondsPerGbit.toFixed(2)}`,
  ].join(' ');
}

process.stderr.write(`kernel ${release()}, ${flags.link}, ${flags.place}, gso ${flags.gso}\n`);
for (const rate of flags.rates.split(',')) {
  for (const load of flags.loads.split(',')) {
    for (const direction of flags.directions.split(',') as Direction[]) {
      for (const mechanism of mechanisms.filter(({ name }) => new RegExp(flags.mechanisms).test(name))) {
        const rateBps = Number(parseQuantity(rate));
        const one: Case = { mechanism, direction, rateBps, load: loadOf(load, rateBps), gso: flags.gso === 'on' };
        const found = await run(flags.link as PairLink, flags.place as PeerPlace, one, Number(flags.seconds));
        if (found === undefined) continue;
        process.stdout.write(`${show(mechanism.name, one, load, found)}\n`);
        if (flags.json !== undefined) {
          const { name } = mechanism;
          const facts = { kernel: release(), link: flags.link, gso: one.gso, name, direction, rateBps, load };
          appendFileSync(flags.json, `${JSON.stringify({ ...facts, ...found })}\n`);
        }
      }
    }
  }
}
