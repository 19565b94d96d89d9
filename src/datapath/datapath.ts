/**
 * The kernel's share of Sluice, seen from TypeScript: one object for a node, over maps pinned on bpffs. Everything it
 * writes stays in force when the process ends, and a new Datapath over the same directory continues from it. All calls
 * are synchronous. One process at a time writes.
 */
import type { IpPrefix } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { SluiceError } from '../core/error.ts';
import type { BpfMap } from '../kernel/index.ts';
import { type DropReason, ENDPOINT_NODE_IFINDEX_SHIFT, endpointFlag, reservedRule } from './abi.ts';
import {
  type Counter,
  readCounters,
  readRuleCounters,
  removeCounters,
  removeRuleCounters,
  type RuleCounter,
} from './counters.ts';
import { type Connection, countConnections, readConnections } from './connections.ts';
import { EndpointMap } from './endpoint-map.ts';
import { type DatapathEvent, EventReader } from './events.ts';
import {
  type AttachMechanism,
  EndpointHooks,
  type Finding,
  type InterfacePlace,
  type NamedHookProgram,
} from './hooks.ts';
import { type IpcacheChange, IpcacheMap } from './ipcache-map.ts';
import { mapRemedies, mapUsage, type MapUsage } from './map-usage.ts';
import { DatapathMaps, type MapLimits } from './maps.ts';
import { ensureNodeMark, nodeMarkState, removeNodeMark } from './node-mark.ts';
import { type PolicyEntry, PolicyTable } from './policy-table.ts';
import { readEndpointObject } from './programs.ts';

export type { Counter, RuleCounter } from './counters.ts';
export type { DatapathEvent } from './events.ts';
export type { Finding } from './hooks.ts';
export type { MapUsage } from './map-usage.ts';
export type { PolicyEntry } from './policy-table.ts';

export interface DatapathOptions {
  /** A directory on a mounted bpffs; made if absent. */
  readonly bpffsDir: string;
  readonly log?: Logger;
  readonly limits?: MapLimits;
  /** Default: tcx where the kernel has it. */
  readonly mechanism?: AttachMechanism | undefined;
  /** Default: the object that comes with this version. */
  readonly objectPath?: string | undefined;
  /** Default: the layout of this version. Tests are another version with it. */
  readonly abiVersion?: number | undefined;
  /** Default: true. False: throws already_exists instead of replacing maps that do not fit. */
  readonly mayReplaceMaps?: boolean | undefined;
}

export interface EndpointPolicy {
  readonly isolated: { readonly ingress: boolean; readonly egress: boolean };
  readonly entries: readonly PolicyEntry[];
  /** What policy would drop is let through, counted as `audit` and reported as events. */
  readonly audit?: boolean;
}

/** What the kernel holds of an endpoint. */
export interface EndpointState {
  readonly endpointId: number;
  /** False: everything except ARP and neighbour discovery is dropped. */
  readonly programmed: boolean;
  readonly policyRevision: number;
  readonly isolated: { readonly ingress: boolean; readonly egress: boolean };
  readonly audit: boolean;
  /** Interfaces with pinned links; empty where the kernel has no tcx. */
  readonly interfaces: readonly string[];
}

/** Pins or an entry of an endpoint that nobody knows. */
export interface Orphan {
  readonly endpointId: number;
  /** Ids of its links that are on a device still: taking them off would open it. */
  readonly liveLinks: readonly number[];
}

export class Datapath implements Disposable {
  readonly #maps: DatapathMaps;
  readonly #hooks: EndpointHooks;
  readonly #policies: PolicyTable;
  readonly #endpoints: EndpointMap;
  readonly #ipcache: IpcacheMap;
  /** Alive when they were counted last. */
  #connections: number | undefined;
  readonly #events: EventReader;

  private constructor(maps: DatapathMaps, hooks: EndpointHooks) {
    this.#maps = maps;
    this.#hooks = hooks;
    this.#endpoints = new EndpointMap(maps.byName.endpoints);
    this.#policies = new PolicyTable(maps.byName.policy);
    this.#ipcache = new IpcacheMap(maps.byName.ipcache);
    this.#events = new EventReader(maps);
    this.#policies.adopt(
      new Map(this.#endpoints.entries().map(([endpointId, { policyId }]) => [endpointId, policyId])),
    );
  }

  /**
   * Creates the maps, or adopts those that are pinned. Where these are of another version or size there are new ones, without
   * any endpoint; hooks have the programs over the old ones until `attach`.
   */
  static open(options: DatapathOptions): Datapath {
    const object = readEndpointObject(options.objectPath);
    const maps = DatapathMaps.open(options.bpffsDir, object.spec, options.limits ?? {}, {
      ...{ abiVersion: options.abiVersion, mayReplace: options.mayReplaceMaps },
      onReplaced: (misfits) => options.log?.info({ misfits }, 'pinned maps do not fit and were made anew'),
    });
    try {
      const datapath = new Datapath(maps, new EndpointHooks(options.bpffsDir, object, maps.byName, options.mechanism));
      const adopted = datapath.endpoints().length;
      options.log?.info({ bpffsDir: options.bpffsDir, endpoints: adopted }, 'datapath open');
      return datapath;
    } catch (error) {
      maps.close();
      throw error;
    }
  }

  /** How programs get onto hooks on this kernel. */
  get mechanism(): AttachMechanism {
    return this.#hooks.mechanism;
  }

  /**
   * Puts the programs on both hooks of the interface. Idempotent; an endpoint without a policy drops everything
   * from here on. `netns` is a path. Replaces programs of an earlier version without a gap.
   */
  attach(target: { endpointId: number; netns: string; interfaceName: string }): void {
    this.register(target.endpointId);
    this.#hooks.attach(target.endpointId, target.netns, target.interfaceName);
  }

  /**
   * `interfaceName` is the pod's end of a veth pair whose other end is the node's: from here on only what the node itself sends
   * through it counts as the node's, not what it forwards with its own address. Idempotent. Does nothing when the other end is
   * not in the calling thread's network namespace.
   */
  markNode(target: { endpointId: number; netns: string; interfaceName: string }): void {
    const endpoint = this.#endpoints.get(target.endpointId);
    if (endpoint === undefined) return;
    const ifindex = ensureNodeMark(target.netns, target.interfaceName);
    if (ifindex === undefined) return;
    const flags = (endpoint.flags & ~nodeFlags) | nodeFlagsOf(ifindex);
    this.#endpoints.set(target.endpointId, { ...endpoint, flags });
  }

  /** Whether `markNode` would change nothing. */
  isNodeMarked(target: { endpointId: number; netns: string; interfaceName: string }): boolean {
    const flags = this.#endpoints.get(target.endpointId)?.flags ?? 0;
    const state = nodeMarkState(target.netns, target.interfaceName);
    if (typeof state === 'string') return state === 'elsewhere';
    return (flags & nodeFlags) === nodeFlagsOf(state.ifindex);
  }

  /**
   * An id for a new endpoint that nothing in the kernel has, with prepared programs when there are any. Ids are used again
   * late. Throws limit_exceeded when there is none left.
   */
  nextEndpointId(isTaken: (endpointId: number) => boolean): number {
    const { prepared } = this.#hooks;
    prepared.keepOnly((id) => !isTaken(id) && this.#isFree(id));
    const [ready] = prepared.ids();
    const endpointId = ready ?? this.#endpoints.nextId((id) => !isTaken(id) && this.#isFree(id));
    if (endpointId !== undefined) return endpointId;
    throw new SluiceError({
      code: 'limit_exceeded',
      operation: 'create endpoint',
      object: 'on this node',
      what: `it may have ${this.#endpoints.capacity} endpoints`,
      remedy: mapRemedies.endpoints,
    });
  }

  /**
   * Loads one program of an endpoint to come, which blocks for some milliseconds: to be called when there is nothing else to
   * do, until it answers false because `count` pairs are ready. What was prepared goes with the process.
   */
  prepare(count: number): boolean {
    const { prepared } = this.#hooks;
    prepared.keepOnly((id) => this.#isFree(id));
    return prepared.prepareOne(count, () =>
      this.#endpoints.nextId((id) => !prepared.ids().includes(id) && this.#isFree(id)),
    );
  }

  /**
   * Makes the endpoint known, so that it can have its policy before its hooks. Idempotent. Throws limit_exceeded for an id
   * beyond the limit.
   */
  register(endpointId: number): void {
    if (this.#endpoints.get(endpointId) === undefined) this.#endpoints.set(endpointId, { policyId: 0, flags: 0 });
  }

  /**
   * Removes pins, policy and counters; succeeds when they are gone already. Where the kernel has no tcx, filters stay on
   * interfaces that are not named, and drop everything. Connections stay in conntrack until they
   * expire: no policy id is used twice, so a later endpoint of the same id has each of them judged anew.
   */
  detachEndpoint(endpointId: number, interfaces: readonly InterfacePlace[] = []): void {
    // Hooks first: an adopted pod has other hooks by now, which these must not cut.
    this.#hooks.remove(endpointId, interfaces);
    for (const { netns, interfaceName } of interfaces) removeNodeMark(netns, interfaceName);
    this.#endpoints.delete(endpointId);
    const ruleIds = new Set([...this.#policies.ruleIds(endpointId), ...Object.values(reservedRule)]);
    this.#policies.forget(endpointId);
    removeCounters(this.#maps.byName, endpointId);
    removeRuleCounters(this.#maps.byName.rule_counters, endpointId, ruleIds);
  }

  /**
   * Replaces the endpoint's policy in one step: each packet is judged by the old or the new one. The next packet of
   * every established connection is judged again.
   */
  setPolicy(endpointId: number, policy: EndpointPolicy): void {
    const existing = this.#endpoints.get(endpointId);
    if (existing === undefined) {
      throw new SluiceError({
        code: 'not_found',
        operation: 'set policy of',
        object: `endpoint ${endpointId}`,
        what: 'it is not attached',
      });
    }
    const flags = (flagsOf(policy) | (existing.flags & nodeFlags)) >>> 0;
    if (existing.flags === flags && this.#policies.isCurrent(endpointId, policy.entries)) return;
    const policyId = this.#maps.readConfig().lastPolicyId + 1;
    this.#maps.writeConfig({ lastPolicyId: policyId });
    const image = this.#policies.write(policyId, policy.entries);
    this.#endpoints.set(endpointId, { policyId, flags });
    this.#policies.commit(endpointId, policyId, image);
  }

  /**
   * Adds entries (by endpoint id) to the policies in force, of identities that no address has: nobody's verdict changes, so no
   * connection is judged again. All or nothing.
   */
  extendPolicies(additions: ReadonlyMap<number, readonly PolicyEntry[]>): void {
    this.#policies.extend(additions);
  }

  /** Takes the entries of identities that no address has out of the policy in force. */
  forgetIdentities(endpointId: number, identities: ReadonlySet<number>): void {
    this.#policies.forgetIdentities(endpointId, identities);
  }

  /** The entries the kernel has for the endpoint. */
  policyEntries(endpointId: number): PolicyEntry[] {
    return this.#policies.entries(endpointId);
  }

  endpoints(): EndpointState[] {
    const pinned = this.#hooks.pinned();
    return this.#endpoints.entries().map(([endpointId, { policyId, flags }]) => ({
      endpointId,
      programmed: (flags & endpointFlag.programmed) !== 0,
      policyRevision: policyId,
      isolated: {
        ingress: (flags & endpointFlag.isolatedIngress) !== 0,
        egress: (flags & endpointFlag.isolatedEgress) !== 0,
      },
      audit: (flags & endpointFlag.audit) !== 0,
      interfaces: pinned.get(endpointId) ?? [],
    }));
  }

  /**
   * First the new, then the removals, then the epoch: from then on every connection is judged by the result. Throws
   * limit_exceeded, and changes nothing, when the new ones do not fit.
   */
  updateIpcache(change: IpcacheChange): void {
    if (change.upsert.length === 0 && change.remove.length === 0) return;
    this.#ipcache.update(change);
    this.#maps.writeConfig({ epoch: (this.#maps.readConfig().epoch + 1) >>> 0 });
  }

  /** How many prefixes `updateIpcache` takes. */
  get ipcacheCapacity(): number {
    return this.#ipcache.capacity;
  }

  ipcache(): [prefix: IpPrefix, identity: number][] {
    return this.#ipcache.entries();
  }

  /** What is missing or wrong; empty when the endpoint is enforced on this interface. */
  checkEndpoint(endpointId: number, netns: string, interfaceName: string): Finding[] {
    const findings = this.#hooks.check(endpointId, netns, interfaceName);
    const programmed = ((this.#endpoints.get(endpointId)?.flags ?? 0) & endpointFlag.programmed) !== 0;
    if (programmed) return findings;
    return [...findings, { problem: 'not_programmed', message: `endpoint ${endpointId} has no policy in the kernel` }];
  }

  /**
   * Gives maps, programs and links back the names on bpffs that somebody removed; answers the paths. What this process
   * holds open stayed in force without them.
   */
  restorePins(interfacesOf: ReadonlyMap<number, readonly string[]>): string[] {
    const names = this.#hooks.restorePins(interfacesOf.keys(), (id) => interfacesOf.get(id) ?? []);
    return [...this.#maps.restorePins(), ...names];
  }

  /** Endpoints in the kernel that are not among `known`. */
  orphans(known: ReadonlySet<number>): Orphan[] {
    const ids = new Set([...this.#hooks.pinned().keys(), ...this.#endpoints.entries().map(([id]) => id)]);
    return [...ids]
      .filter((id) => !known.has(id))
      .map((endpointId) => ({ endpointId, liveLinks: this.#hooks.liveLinks(endpointId) }));
  }

  /** Everything on both hooks of the interface, whoever put it there; links are 0 where the kernel has no tcx. */
  programsOn(place: InterfacePlace): NamedHookProgram[] {
    return this.#hooks.programsOn(place);
  }

  /**
   * Whether hooks and pins are as the last check found them: some microseconds, to be asked every second. When not,
   * `checkEndpoint` tells why.
   */
  unchanged(endpointId: number, netns: string, interfaceNames: readonly string[]): boolean {
    return this.#hooks.hasPins(endpointId) && this.#hooks.unchanged(endpointId, netns, interfaceNames);
  }

  /** Packets and bytes since the endpoint was attached, forwarded ones included. */
  counters(): Counter[] {
    return readCounters(
      this.#maps.byName,
      this.#endpoints.entries().map(([id]) => id),
    );
  }

  dropCounters(): Counter<DropReason>[] {
    return this.counters().filter(
      (counter): counter is Counter<DropReason> => counter.reason !== 'forwarded' && counter.reason !== 'audit',
    );
  }

  /** Decisions of the rules in force. */
  ruleCounters(): RuleCounter[] {
    const rules = new Map(this.#endpoints.entries().map(([id]) => [id, this.#policies.ruleIds(id)]));
    const reserved: readonly number[] = Object.values(reservedRule);
    return readRuleCounters(this.#maps.byName.rule_counters, (endpointId, ruleId) => {
      const known = rules.get(endpointId);
      return known !== undefined && (known.has(ruleId) || reserved.includes(ruleId));
    });
  }

  /** The oldest events that nobody has read, at most `max`. Costs no system call; meant to be polled. */
  readEvents(max = 4096): DatapathEvent[] {
    return this.#events.read(max);
  }

  /** Events that were not written, since the maps were made: over the endpoint's budget, or read too slowly. */
  lostEvents(): bigint {
    return this.#events.lost();
  }

  /** Drops and audit are always reported; new connections that are allowed only when asked for. Survives the process. */
  setEventKinds(kinds: { readonly allow: boolean }): void {
    this.#events.setKinds(kinds);
  }

  /** Connections that are alive, at most `max`; takes two system calls for each that the map has. */
  connections(max: number): Connection[] {
    return readConnections(this.#maps.byName.conntrack, max, process.hrtime.bigint());
  }

  /** Counts the connections that are alive, for `mapUsage`: a system call in each step, hundreds when there are many. */
  *countConnections(): Generator<void> {
    let counted = 0;
    yield* countConnections(this.#maps.byName.conntrack, process.hrtime.bigint(), (alive) => (counted += alive));
    this.#connections = counted;
  }

  /** How full the maps are, conntrack as it was counted last; takes a few system calls for each endpoint. */
  mapUsage(): readonly MapUsage[] {
    const { metrics, rule_counters: ruleCounters } = this.#maps.byName;
    const count = (map: BpfMap): number => [...map.keys()].length;
    return mapUsage(this.#maps, {
      endpoints: this.#endpoints.entries().length,
      policy: this.#policies.size,
      ipcache: this.#ipcache.size,
      conntrack: this.#connections,
      metrics: count(metrics),
      rule_counters: count(ruleCounters),
    });
  }

  /** Lets go of everything it holds; enforcement goes on. */
  close(): void {
    this.#events[Symbol.dispose]();
    this.#endpoints[Symbol.dispose]();
    this.#hooks[Symbol.dispose]();
    this.#maps.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Pins without an element are an orphan's: they may be on a hook still. */
  #isFree(endpointId: number): boolean {
    return this.#endpoints.get(endpointId) === undefined && !this.#hooks.hasPins(endpointId);
  }
}

/** What policies leave as it is. */
const nodeFlags = endpointFlag.nodeMarked | (-1 << ENDPOINT_NODE_IFINDEX_SHIFT);

/** Of a pod's end of the veth pair to the node. An index that has no room is none: the node is not believed then. */
function nodeFlagsOf(ifindex: number): number {
  const stored = ifindex < 2 ** (32 - ENDPOINT_NODE_IFINDEX_SHIFT) ? ifindex : 0;
  return endpointFlag.nodeMarked | (stored << ENDPOINT_NODE_IFINDEX_SHIFT);
}

function flagsOf(policy: EndpointPolicy): number {
  return (
    endpointFlag.present |
    endpointFlag.programmed |
    (policy.isolated.ingress ? endpointFlag.isolatedIngress : 0) |
    (policy.isolated.egress ? endpointFlag.isolatedEgress : 0) |
    (policy.audit === true ? endpointFlag.audit : 0)
  );
}
