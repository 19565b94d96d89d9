/** What the address commands print for people. Pure. */
import type { Finding } from '../ipam/audit.ts';
import type { SeenAddresses } from './ipam-cluster.ts';
import type { GcRecord, GcReport } from './ipam-gc.ts';
import { placeText, type AddressView, type PodAddressesView, type PoolView } from './ipam-views.ts';
import { table } from './render.ts';

export function renderPools(pools: readonly PoolView[]): string {
  if (pools.length === 0) return 'no pools';
  const header = ['POOL', 'VERSION', 'SUBNET', 'USED', 'FREE', 'RESERVED', 'TOTAL', 'DEFAULT', 'STATE', 'ADDRESSES'];
  return table(
    header,
    pools.map((pool) => [
      pool.name,
      String(pool.version ?? '-'),
      pool.subnet,
      String(pool.allocated),
      String(pool.freeCount),
      String(pool.reservedCount),
      String(pool.total),
      pool.default ? 'yes' : 'no',
      pool.note ?? 'ready',
      shortened(pool.ranges),
    ]),
  );
}

/** A pool of many pieces would fill the screen; --json has them all. */
function shortened(ranges: readonly string[]): string {
  const [shown, rest] = [ranges.slice(0, 4), ranges.length - 4];
  return [...shown, ...(rest > 0 ? [`… ${rest} more`] : [])].join(', ') || '-';
}

export function renderFree(pools: readonly Pick<PoolView, 'name' | 'free' | 'freeCount' | 'note'>[]): string {
  if (pools.length === 0) return 'no pools';
  return pools
    .map(({ name, free, freeCount, note }) => {
      const state = note === undefined ? '' : ` (${note}: nothing is handed out)`;
      return [`${name}: ${freeCount} free${state}`, ...free.map((range) => `  ${range}`)].join('\n');
    })
    .join('\n');
}

export function renderAddress(info: AddressView): string {
  const { record } = info;
  const pod = record && `${record.pod} (uid ${record.podUid}), ${record.interface}`;
  const state = record && (info.podPhase ?? 'gone, or another pod of this name');
  return facts([
    ['Address', info.address],
    ['State', info.state],
    ['Pool', info.pool ?? 'none'],
    ['Pod', pod],
    ['Pod is', state === undefined ? undefined : `${state}${info.podNode === undefined ? '' : ` on ${info.podNode}`}`],
    ['SpiderEndpoint', info.endpoint],
    ['Found on', info.onInterfaces.map(placeText).join('; ') || 'no interface of the nodes that answered'],
    ...unansweredFacts(info.unanswered),
  ]);
}

export function renderPodAddresses(info: PodAddressesView): string {
  const head = facts([
    ['Pod', info.uid === undefined ? info.pod : `${info.pod} (uid ${info.uid})`],
    ['Pod is', info.phase === undefined ? 'gone' : `${info.phase}${info.node === undefined ? '' : ` on ${info.node}`}`],
    ...unansweredFacts(info.unanswered),
  ]);
  if (info.addresses.length === 0) return `${head}\n\nno addresses`;
  const rows = info.addresses.map((row) => [
    row.interface,
    row.address,
    row.pool ?? '-',
    row.record,
    row.endpoint ? 'yes' : 'no',
    row.onInterface ? 'yes' : 'no',
  ]);
  const header = ['INTERFACE', 'ADDRESS', 'POOL', 'RECORDED', 'ENDPOINT', 'ON INTERFACE'];
  return `${head}\n\n${table(header, rows)}`;
}

export interface CheckReport {
  readonly findings: readonly Finding[];
  readonly pools: number;
  readonly records: number;
  readonly nodes: readonly string[];
  readonly unanswered: SeenAddresses['unanswered'];
}

export function renderCheck({ findings, pools, records, nodes, unanswered }: CheckReport): string {
  const rows = findings.map(({ kind, address, pool, message }) => [kind, address ?? '-', pool ?? '-', message]);
  const scope = `${records} records of ${pools} pools against pods, SpiderEndpoints and the interfaces of ${nodes.length} nodes`;
  return [
    ...(rows.length === 0 ? [] : [table(['KIND', 'ADDRESS', 'POOL', 'WHAT'], rows), '']),
    `${findings.length === 0 ? 'no finding' : `${findings.length} findings`}: ${scope}`,
    ...unanswered.map(({ node, why }) => `not looked at: ${node}: ${why}`),
  ].join('\n');
}

export function renderGc({ dryRun, records }: GcReport): string {
  const rows = records.map(({ state, until, address, pool, pod, reason }) => [
    state === 'waiting' ? `waiting until ${until ?? ''}` : state,
    ...[address, pool, pod, reason],
  ]);
  const count = (state: GcRecord['state']): number => records.filter((record) => record.state === state).length;
  const outcome = dryRun
    ? `${count('due')} addresses would be given back`
    : `${count('returned')} addresses given back`;
  return [
    ...(rows.length === 0 ? [] : [table(['STATE', 'ADDRESS', 'POOL', 'POD', 'WHY'], rows), '']),
    `${outcome}, ${count('waiting')} wait for their time`,
  ].join('\n');
}

function unansweredFacts(unanswered: SeenAddresses['unanswered']): [string, string][] {
  return unanswered.length === 0 ? [] : [['Not looked at', unanswered.map(({ node }) => node).join(', ')]];
}

function facts(all: readonly (readonly [string, string | undefined])[]): string {
  const told = all.flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
  const width = Math.max(...told.map(([name]) => name.length));
  return told.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${value}`).join('\n');
}
