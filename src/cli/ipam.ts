/** `sluice ipam …`: what pools hold and hand out, who has an address, and whether everything that tells it agrees. */
import type { Command } from 'commander';
import { SluiceError } from '../core/error.ts';
import { systemClock } from '../core/clock.ts';
import { formatIp, parseIp } from '../core/ip.ts';
import { addressInfo } from '../ipam/address-info.ts';
import { auditAddresses, findingKey, type Finding } from '../ipam/audit.ts';
import { poolUsage } from '../ipam/pool-usage.ts';
import { examples } from './endpoint.ts';
import {
  askNodes,
  openCluster,
  readPools,
  readWritten,
  withCluster,
  type IpamCluster,
  type IpamFlags,
  type SeenAddresses,
} from './ipam-cluster.ts';
import { collectGarbage } from './ipam-gc.ts';
import { releaseAddress } from './ipam-release.ts';
import { describeAddress, describePod, poolView, type PoolView } from './ipam-views.ts';
import { podPath, print, printJson } from './output.ts';
import { renderAddress, renderCheck, renderFree, renderGc, renderPodAddresses, renderPools } from './render-ipam.ts';
import { loadSettings } from './settings.ts';

export function registerIpamCommands(program: Command): void {
  const ipam = program
    .command('ipam')
    .description('addresses: pools, who has one, what is free, and whether all agrees');
  withCluster(ipam.command('pools'))
    .description('every pool: its addresses as ranges, how many are used, free and reserved')
    .addHelpText('after', examples('sluice ipam pools', 'sluice ipam pools --lab DIR --json'))
    .action(pools);
  withCluster(ipam.command('free'))
    .description('free addresses as ranges: neither in use, nor excluded, nor reserved')
    .argument('[pool]', 'a SpiderIPPool (default: all)')
    .addHelpText('after', examples('sluice ipam free', 'sluice ipam free ens192-v4'))
    .action(free);
  withCluster(ipam.command('show'))
    .description('an address (its pool, its pod, where it really is) or a pod (its addresses)')
    .argument('<address or pod>', 'an IP address, NAMESPACE/POD, or POD with -n')
    .option('-n, --namespace <name>', 'namespace of a POD that does not say it', 'default')
    .addHelpText('after', examples('sluice ipam show 172.51.0.100', 'sluice ipam show demo/web --json'))
    .action(show);
  withCluster(ipam.command('release'))
    .description('give an address back to its pool; refused while a pod has it')
    .argument('<address>', 'an IP address')
    .option(
      '--force',
      'even while a pod has it: the pod keeps it on its interface, and another pod may get it too',
      false,
    )
    .addHelpText('after', examples('sluice ipam release 172.51.0.100', 'sluice ipam release fd00:51::9 --force'))
    .action(release);
  withCluster(ipam.command('gc'))
    .description(
      'give back the addresses of pods that are gone or have ended, as the controller does from time to time',
    )
    .option('--dry-run', 'only tell what would be given back', false)
    .option('--config <file>', 'the settings that the controller has (conf.yml); default: the defaults')
    .addHelpText('after', examples('sluice ipam gc --dry-run', 'sluice ipam gc --json'))
    .action(gc);
  withCluster(ipam.command('check'))
    .description(
      'compare records, pods, SpiderEndpoints and interfaces. Exit status 1: findings; 2: not every node answered',
    )
    .addHelpText('after', examples('sluice ipam check', 'sluice ipam check --json | jq .findings'))
    .action(check);
}

async function pools(flags: IpamFlags): Promise<void> {
  using cluster = await openCluster(flags, process.env);
  const read = await readPools(cluster.client);
  const views = read.pools.map((pool) => poolView(pool, read.reserved));
  if (flags.json) printJson(views);
  else print(renderPools(views));
}

async function free(name: string | undefined, flags: IpamFlags): Promise<void> {
  using cluster = await openCluster(flags, process.env);
  const read = await readPools(cluster.client);
  const chosen = read.pools.filter((pool) => name === undefined || pool.metadata.name === name);
  if (name !== undefined && chosen.length === 0) {
    const known = read.pools.map((pool) => pool.metadata.name).join(', ');
    const remedy = known === '' ? 'kubectl apply a SpiderIPPool' : `these exist: ${known}`;
    throw notFound(`SpiderIPPool ${name}`, 'there is no such pool', remedy);
  }
  const views: Pick<PoolView, 'name' | 'free' | 'freeCount' | 'note'>[] = chosen.map((pool) => {
    const { name: poolName, free: ranges, freeCount, note } = poolView(pool, read.reserved);
    return { name: poolName, free: ranges, freeCount, note };
  });
  if (flags.json) printJson(views);
  else print(renderFree(views));
}

async function show(what: string, flags: IpamFlags & { readonly namespace: string }): Promise<void> {
  using cluster = await openCluster(flags, process.env);
  const written = await readWritten(cluster.client);
  const seen = await askNodes(cluster, written.nodes);
  const ip = parseIp(what);
  if (ip !== undefined) {
    const info = describeAddress(addressInfo(ip, written.pools, written.reserved), written, seen);
    if (flags.json) printJson(info);
    else print(renderAddress(info));
    return;
  }
  const { namespace, name } = podPath(what, flags.namespace);
  const info = describePod(namespace, name, written, seen);
  if (info === undefined) {
    const remedy = `kubectl get pods -n ${namespace} lists pods; an address is written as 10.6.0.1 or fd00::1`;
    throw notFound(`${namespace}/${name}`, 'no pod, record or SpiderEndpoint has this name', remedy);
  }
  if (flags.json) printJson(info);
  else print(renderPodAddresses(info));
}

async function release(what: string, flags: IpamFlags & { readonly force: boolean }): Promise<void> {
  const ip = parseIp(what);
  if (ip === undefined) {
    throw new SluiceError({
      ...{ code: 'invalid_argument', operation: 'release', object: what, what: 'it is not an IP address' },
      remedy: 'write it as 10.6.0.1 or fd00::1; sluice ipam show POD lists a pod’s addresses',
    });
  }
  using cluster = await openCluster(flags, process.env);
  const released = await releaseAddress(cluster, formatIp(ip), flags.force);
  if (flags.json) return printJson(released);
  print(`${released.address} is free again in pool ${released.pool}; it was recorded for pod ${released.pod}`);
  if (released.objection !== undefined)
    print(`forced, although ${released.objection}: it keeps working there until another pod gets it`);
}

async function gc(flags: IpamFlags & { readonly dryRun: boolean; readonly config?: string }): Promise<void> {
  const { settings, warnings } = loadSettings(flags.config);
  for (const warning of warnings) process.stderr.write(`warning: ${warning}\n`);
  using cluster = await openCluster(flags, process.env);
  const report = await collectGarbage(cluster, settings, flags.dryRun);
  if (flags.json) printJson(report);
  else print(renderGc(report));
}

/** What an ADD or DEL in progress shows is gone after this time. */
const secondLookMs = 3_000;

async function check(flags: IpamFlags): Promise<void> {
  using cluster = await openCluster(flags, process.env);
  const first = await look(cluster);
  let last = first;
  if (first.findings.length > 0) {
    await systemClock.sleep(secondLookMs);
    last = await look(cluster);
  }
  const before = new Set(first.findings.map(findingKey));
  const findings = last.findings.filter((finding) => before.has(findingKey(finding)));
  const { unanswered } = last.seen;
  const report = {
    findings,
    pools: last.pools,
    records: last.records,
    nodes: last.seen.nodes.map(({ node }) => node),
    unanswered,
  };
  if (flags.json) printJson(report);
  else print(renderCheck(report));
  process.exitCode = findings.length > 0 ? 1 : unanswered.length > 0 ? 2 : 0;
}

interface Look {
  readonly findings: readonly Finding[];
  readonly pools: number;
  readonly records: number;
  readonly seen: SeenAddresses;
}

async function look(cluster: IpamCluster): Promise<Look> {
  const { nodes } = await readWritten(cluster.client);
  // Interfaces first: what is allocated between the two looks is then a record without an interface, not the reverse.
  const seen = await askNodes(cluster, nodes);
  const written = await readWritten(cluster.client);
  const findings = auditAddresses({ ...written, nodes: seen.nodes });
  const records = written.pools.reduce((sum, pool) => sum + recordCount(pool), 0);
  return { findings, pools: written.pools.length, records, seen };
}

function recordCount(pool: Parameters<typeof poolUsage>[0]): number {
  try {
    return poolUsage(pool).allocated;
  } catch {
    return 0; // told as a finding
  }
}

function notFound(object: string, what: string, remedy: string): SluiceError {
  return new SluiceError({ code: 'not_found', operation: 'find', object, what, remedy });
}
