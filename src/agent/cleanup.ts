/**
 * Takes away everything that an agent has put on a node, in the reverse order of making: limits, programs, names and maps on
 * bpffs, records, sockets. Pods run on, without policy and without limits. Addresses and what the CNI chain made stay.
 */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { Datapath } from '../datapath/datapath.ts';
import { pinnedEndpointIds } from '../datapath/pins.ts';
import { applyBandwidth, readBandwidth } from '../datapath/shaper.ts';
import { removeSocketGuard } from '../datapath/socket-guard.ts';
import { netnsInode } from '../kernel/index.ts';
import { EndpointStore, type EndpointRecord } from './endpoint-store.ts';
import { InstanceLock, type InstancePlaces } from './instance-lock.ts';
import { PodCgroups } from './pod-cgroup.ts';
import { nodeNamespaces } from './pod-netns.ts';

export interface CleanupOptions extends InstancePlaces {
  readonly agentSocketPath?: string | undefined;
  /** Only say what would be done. */
  readonly dryRun: boolean;
  readonly log: Logger;
}

export interface CleanupStep {
  readonly what: 'limits' | 'programs' | 'socket-guard' | 'endpoint' | 'maps' | 'bpffs' | 'records' | 'socket';
  readonly object: string;
}

/** What was taken away, or would be. Throws already_exists while an agent runs, before anything is touched. */
export async function cleanUp(options: CleanupOptions): Promise<CleanupStep[]> {
  const { stateDir, bpffsDir } = options;
  const missing = [stateDir, bpffsDir].filter((dir) => !existsSync(dir));
  const lock = await InstanceLock.acquire(options);
  try {
    const records = readRecords(options);
    return [
      ...cleanRecorded(options, records),
      ...(await cleanUnrecorded(options, records)),
      ...cleanFiles(options, missing),
    ];
  } finally {
    await lock.release();
    // Taking the lock makes its directories.
    for (const dir of missing) removeIfEmpty(dir);
  }
}

function readRecords({ stateDir, log }: CleanupOptions): readonly EndpointRecord[] {
  return existsSync(join(stateDir, 'endpoints')) ? EndpointStore.open(stateDir, log).list() : [];
}

function cleanRecorded(options: CleanupOptions, records: readonly EndpointRecord[]): CleanupStep[] {
  const { bpffsDir, dryRun } = options;
  const { opened, misfit } = openDatapath(options);
  using datapath = opened;
  const cgroups = new PodCgroups(systemClock);
  const steps = records.flatMap((record) => [
    ...takeLimits(record, dryRun),
    ...takeGuard(record, cgroups, dryRun),
    ...takePrograms(record, datapath, dryRun),
  ]);
  const known = new Set(records.map(({ endpointId }) => endpointId));
  // Maps that do not fit tell nothing; names do.
  const ids = datapath?.orphans(known).map(({ endpointId }) => endpointId) ?? pinnedEndpointIds(bpffsDir);
  const orphans = ids.filter((endpointId) => !known.has(endpointId));
  for (const endpointId of dryRun ? [] : orphans) datapath?.detachEndpoint(endpointId);
  const ofOrphans = orphans.map((endpointId) => step('endpoint', `${endpointId}, which no record knows`));
  const ofMaps = misfit === undefined ? [] : [step('maps', misfit)];
  return [...steps, ...ofOrphans, ...ofMaps];
}

/** Maps of another version are listed as they are; only to remove them are they made anew, so that programs come off by it. */
function openDatapath({ bpffsDir, dryRun }: CleanupOptions): {
  readonly opened: Datapath | undefined;
  readonly misfit?: string;
} {
  // Opening makes maps where there are none.
  if (!existsSync(bpffsDir) || readdirSync(bpffsDir).length === 0) return { opened: undefined };
  try {
    return { opened: Datapath.open({ bpffsDir, mayReplaceMaps: false }) };
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code !== 'already_exists') throw error;
    const misfit = `those in ${bpffsDir}, of another version or size`;
    return { opened: dryRun ? undefined : Datapath.open({ bpffsDir }), misfit };
  }
}

function takeLimits(record: EndpointRecord, dryRun: boolean): CleanupStep[] {
  if (!isAlive(record)) return [];
  const { netns, ifName: interfaceName, pod } = record;
  const isLimited = removeLimits({ netns, interfaceName }, dryRun);
  return isLimited ? [step('limits', `${interfaceName} of pod ${pod.namespace}/${pod.name}`)] : [];
}

function takeGuard({ pod }: EndpointRecord, cgroups: PodCgroups, dryRun: boolean): CleanupStep[] {
  const dir = cgroups.find(pod.uid);
  const isGuarded = dir !== undefined && removeSocketGuard(dir, { dryRun });
  return isGuarded ? [step('socket-guard', `of pod ${pod.namespace}/${pod.name}`)] : [];
}

function takePrograms(record: EndpointRecord, datapath: Datapath | undefined, dryRun: boolean): CleanupStep[] {
  const { endpointId, netns, interfaces, pod } = record;
  const places = isAlive(record) ? interfaces.map((interfaceName) => ({ netns, interfaceName })) : [];
  if (!dryRun) datapath?.detachEndpoint(endpointId, places);
  const ofPod = `of pod ${pod.namespace}/${pod.name}`;
  return [
    ...places.map(({ interfaceName }) => step('programs', `${interfaceName} ${ofPod}`)),
    step('endpoint', `${endpointId} ${ofPod}`),
  ];
}

/** Limits of this node's pods whose records are lost. */
async function cleanUnrecorded({ dryRun }: CleanupOptions, records: readonly EndpointRecord[]): Promise<CleanupStep[]> {
  const known = new Set(records.map(({ netnsInode: inode }) => inode));
  const others = (await nodeNamespaces(new Set())).filter(({ inode }) => !known.has(inode));
  return others.flatMap(({ path: netns, interfaces }) =>
    interfaces.flatMap(({ name: interfaceName }) =>
      removeLimits({ netns, interfaceName }, dryRun)
        ? [step('limits', `${interfaceName} in ${netns}, which no record knows`)]
        : [],
    ),
  );
}

/** Whether there were any. */
function removeLimits(place: { readonly netns: string; readonly interfaceName: string }, dryRun: boolean): boolean {
  try {
    const { egress, ingress } = readBandwidth(place);
    // An ifb without its redirect limits nothing, and goes too.
    if (!dryRun) applyBandwidth(place);
    return egress !== undefined || ingress !== undefined;
  } catch (error) {
    if (hasErrorCode(error, 'not_found')) return false;
    throw error;
  }
}

function cleanFiles(options: CleanupOptions, missing: readonly string[]): CleanupStep[] {
  const { stateDir, bpffsDir, cniSocketPath, dryRun } = options;
  const agentSocket = options.agentSocketPath ?? join(dirname(cniSocketPath), 'agent.sock');
  const candidates = [
    ...(missing.includes(bpffsDir) ? [] : [step('bpffs', bpffsDir)]),
    step('records', join(stateDir, 'endpoints')),
    ...[cniSocketPath, agentSocket].map((path) => step('socket', path)),
  ];
  const steps = candidates.filter(({ object }) => existsSync(object));
  if (dryRun) return steps;
  for (const { what, object } of steps) {
    if (what === 'bpffs') emptyDirectory(object);
    else rmSync(object, { recursive: true, force: true });
  }
  for (const dir of [bpffsDir, stateDir]) removeIfEmpty(dir);
  return steps;
}

/** The directory itself may be a mount point. */
function emptyDirectory(dir: string): void {
  for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true, force: true });
}

/** Whatever else is in it is somebody else's. */
function removeIfEmpty(dir: string): void {
  try {
    rmdirSync(dir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EBUSY' && code !== 'ENOENT') throw error;
  }
}

function isAlive({ netns, netnsInode: inode }: EndpointRecord): boolean {
  return String(netnsInode(netns)) === inode;
}

function step(what: CleanupStep['what'], object: string): CleanupStep {
  return { what, object };
}
