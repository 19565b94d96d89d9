/** The datapath in the shapes that the agent's parts ask for. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { SluiceError } from '../core/error.ts';
import { formatPrefix } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { Datapath } from '../datapath/datapath.ts';
import type { AttachMechanism } from '../datapath/hooks.ts';
import type { MapLimits } from '../datapath/maps.ts';
import { applyBandwidth, readBandwidth } from '../datapath/shaper.ts';
import { MIN_RATE_BPS } from '../datapath/shaper-sizes.ts';
import { probeShapers } from '../datapath/shaper-support.ts';
import { TcMonitor } from '../kernel/index.ts';
import { ensureBpffs, isOnBpffs } from '../kernel/mount.ts';
import { compareEntries } from '../policy/compile.ts';
import { EntryList } from '../policy/entry-list.ts';
import type { IdentityId } from '../policy/identity.ts';
import type { KernelView } from './api/sources.ts';
import type { Shaper } from './bandwidth-reconciler.ts';
import type { EndpointHooks } from './endpoint-datapath.ts';
import type { ChangeMonitor } from './hook-watch.ts';
import type { DropCounter } from './metrics.ts';
import type { PolicyMaps } from './policy-reconciler.ts';
import { ProgramPreparation } from './program-preparation.ts';

const usualBpffs = '/sys/fs/bpf';

export interface KernelParts extends Disposable {
  readonly hooks: EndpointHooks;
  readonly policyMaps: PolicyMaps;
  readonly shaper: Shaper;
  /** Sentences: what bandwidth limits cannot do on this kernel. */
  readonly shapingShortfalls: readonly string[];
  /** Tells of qdiscs and filters that change in namespaces of pods. */
  readonly changes: ChangeMonitor;
  /** To look at, for the agent's API. */
  readonly view: KernelView;
  readonly maps: Pick<Datapath, 'countConnections' | 'mapUsage'>;
  counters(): readonly DropCounter[];
}

export interface KernelOptions {
  readonly bpffsDir: string;
  /** A new size means new maps, taken over like those of another version. */
  readonly mapSizes?: MapLimits | undefined;
  /** Default: the programs that come with this version. */
  readonly endpointObjectPath?: string | undefined;
  /** Default: the layout of this version. */
  readonly abiVersion?: number | undefined;
  /** Default: tcx where the kernel has it. */
  readonly attachMechanism?: AttachMechanism | undefined;
  readonly log: Logger;
}

/** A node without systemd may have no bpffs; a mount of ours is as good as its own. */
export function mountBpffs(bpffsDir: string): void {
  const parent = dirname(bpffsDir);
  if (isOnBpffs(parent) || isOnBpffs(bpffsDir)) return;
  // Nothing can be made on sysfs: there the mount goes to its usual place.
  ensureBpffs(parent === usualBpffs ? parent : bpffsDir);
}

export function openKernelParts(options: KernelOptions): KernelParts {
  const { bpffsDir, mapSizes = {}, endpointObjectPath: objectPath, abiVersion, log } = options;
  const mechanism = options.attachMechanism;
  mountBpffs(bpffsDir);
  const datapath = Datapath.open({ bpffsDir, log, limits: mapSizes, objectPath, abiVersion, mechanism });
  const changes = TcMonitor.open();
  const preparation = new ProgramPreparation({ prepare: (count) => datapath.prepare(count), log });
  preparation.start();
  return {
    hooks: hooksOf(datapath, bpffsDir, preparation),
    policyMaps: policyMapsOf(datapath),
    shaper: { apply: applyRates, read: readBandwidth },
    shapingShortfalls: probeShortfalls(log),
    changes,
    view: viewOf(datapath),
    maps: datapath,
    counters: () => datapath.counters(),
    [Symbol.dispose]: () => {
      changes[Symbol.dispose]();
      preparation[Symbol.dispose]();
      datapath.close();
    },
  };
}

function hooksOf(datapath: Datapath, bpffsDir: string, preparation: ProgramPreparation): EndpointHooks {
  return {
    nextEndpointId: (isTaken) => {
      preparation.start();
      return datapath.nextEndpointId(isTaken);
    },
    register: (endpointId) => datapath.register(endpointId),
    attach: (target) => datapath.attach(target),
    markNode: (target) => datapath.markNode(target),
    isNodeMarked: (target) => datapath.isNodeMarked(target),
    detachEndpoint: (endpointId, interfaces) => datapath.detachEndpoint(endpointId, interfaces),
    checkEndpoint: (endpointId, netns, interfaceName) => datapath.checkEndpoint(endpointId, netns, interfaceName),
    unchanged: (endpointId, netns, interfaceNames) => datapath.unchanged(endpointId, netns, interfaceNames),
    restorePins: (interfacesOf) => {
      // Unmounted, or wiped.
      if (!existsSync(bpffsDir)) mountBpffs(bpffsDir);
      return datapath.restorePins(interfacesOf);
    },
    orphans: (known) => datapath.orphans(known),
    programsOn: (place) => datapath.programsOn(place),
  };
}

function policyMapsOf(datapath: Datapath): PolicyMaps {
  return {
    setPolicy: (endpointId, { entries, ...modes }) =>
      datapath.setPolicy(endpointId, { ...modes, entries: entries.items }),
    extendPolicies: (additions) => datapath.extendPolicies(additions),
    forgetIdentities: (endpointId, identities) => datapath.forgetIdentities(endpointId, identities),
    policy: (endpointId) => {
      const state = datapath.endpoints().find((endpoint) => endpoint.endpointId === endpointId);
      if (state?.programmed !== true) return undefined;
      const entries = datapath.policyEntries(endpointId);
      return {
        isolated: state.isolated,
        audit: state.audit,
        entries: EntryList.of(
          entries.map((entry) => ({ ...entry, identity: entry.identity as IdentityId })).sort(compareEntries),
        ),
      };
    },
    updateIpcache: (change) => datapath.updateIpcache(change),
    ipcache: () => ipcacheOf(datapath),
    ipcacheCapacity: datapath.ipcacheCapacity,
  };
}

function viewOf(datapath: Datapath): KernelView {
  return {
    endpoints: () => datapath.endpoints(),
    policyEntries: (endpointId) => datapath.policyEntries(endpointId),
    counters: () => datapath.counters(),
    ruleCounters: () => datapath.ruleCounters(),
    mapUsage: () => datapath.mapUsage(),
    readEvents: (max) => datapath.readEvents(max),
    setEventKinds: (kinds) => datapath.setEventKinds(kinds),
    lostEvents: () => datapath.lostEvents(),
    ipcache: () => ipcacheOf(datapath),
    connections: (max) => datapath.connections(max),
  };
}

function ipcacheOf(datapath: Datapath): Map<string, number> {
  return new Map(datapath.ipcache().map(([prefix, identity]) => [formatPrefix(prefix), identity]));
}

function probeShortfalls(log: Logger): readonly string[] {
  const { egress, ingress, shortfalls } = probeShapers();
  log.info({ egress: egress[0] ?? 'none', ingress: ingress[0] ?? 'none' }, 'bandwidth is shaped with');
  for (const sentence of shortfalls) log.warn({}, sentence);
  return shortfalls;
}

/** Kubernetes lets 1 kbit/s pass; what the kernel's shapers cannot hold is told as the pod's fault, not as ours. */
const applyRates: Shaper['apply'] = (target, rates) => {
  for (const [direction, bps] of [
    ['ingress', rates.ingressBps],
    ['egress', rates.egressBps],
  ] as const) {
    if (bps === undefined || bps >= MIN_RATE_BPS) continue;
    throw new SluiceError({
      code: 'invalid_resource',
      operation: `limit ${direction} bandwidth of`,
      object: `${target.interfaceName} in ${target.netns}`,
      what: `${bps} bit/s is below the smallest rate that can be shaped`,
      remedy: `set kubernetes.io/${direction}-bandwidth to at least ${MIN_RATE_BPS / 1000}k`,
    });
  }
  applyBandwidth({ ...target, ...rates });
};
