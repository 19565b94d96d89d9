/** The datapath seen from endpoint records: what to attach where, what to take away, what is missing. */
import { podVethName } from '../cni/coordinator-role.ts';
import { hasErrorCode } from '../core/error.ts';
import { netnsInode } from '../kernel/netns.ts';
import type { EndpointRecord } from './endpoint-store.ts';

export interface HookPlace {
  readonly netns: string;
  readonly interfaceName: string;
}

export interface HookTarget extends HookPlace {
  readonly endpointId: number;
}

/** The part of src/datapath's Datapath that endpoints need. */
export interface EndpointHooks {
  nextEndpointId(isTaken: (endpointId: number) => boolean): number;
  register(endpointId: number): void;
  attach(target: HookTarget): void;
  markNode(target: HookTarget): void;
  isNodeMarked(target: HookTarget): boolean;
  detachEndpoint(endpointId: number, interfaces?: readonly HookPlace[]): void;
  checkEndpoint(
    endpointId: number,
    netns: string,
    interfaceName: string,
  ): readonly { readonly problem: string; readonly message: string }[];
  unchanged(endpointId: number, netns: string, interfaceNames: readonly string[]): boolean;
  restorePins(interfacesOf: ReadonlyMap<number, readonly string[]>): string[];
  orphans(
    known: ReadonlySet<number>,
  ): readonly { readonly endpointId: number; readonly liveLinks: readonly number[] }[];
  programsOn(place: HookPlace): readonly { readonly linkId: number; readonly name: string }[];
}

/** What an inspection found and put back. */
export interface Repair {
  /** Kinds of problems, for the metric: "hook_missing", "not_first" … */
  readonly problems: readonly string[];
  /** Sentences. */
  readonly findings: readonly string[];
  /** The endpoint has no policy in the kernel: it drops everything until it is written. */
  readonly unprogrammed: boolean;
  /** Programs of another version were replaced: nothing was wrong. */
  readonly upgraded: boolean;
}

/** Names of our programs, as the kernel shows them (bpf/endpoint.bpf.c). */
const programNames: readonly string[] = ['to_endpoint', 'from_endpoint'];

export class EndpointDatapath {
  readonly #hooks: EndpointHooks;

  constructor(hooks: EndpointHooks) {
    this.#hooks = hooks;
  }

  /** For a new endpoint; throws limit_exceeded when the node has as many as it may. */
  nextId(records: readonly EndpointRecord[]): number {
    const taken = new Set(records.map((record) => record.endpointId));
    return this.#hooks.nextEndpointId((id) => taken.has(id));
  }

  /** Lets the endpoint have a policy before it has hooks. */
  register(record: EndpointRecord): void {
    this.#hooks.register(record.endpointId);
  }

  attach(record: EndpointRecord, interfaceName: string): void {
    const target = { endpointId: record.endpointId, netns: record.netns, interfaceName };
    // Before its programs ask for it.
    if (interfaceName === podVethName) {
      this.#hooks.register(record.endpointId);
      this.#hooks.markNode(target);
    }
    this.#hooks.attach(target);
  }

  detach(record: EndpointRecord): void {
    const { netns } = record;
    const alive = String(netnsInode(netns)) === record.netnsInode;
    const places = alive ? record.interfaces.map((interfaceName) => ({ netns, interfaceName })) : [];
    try {
      this.#hooks.detachEndpoint(record.endpointId, places);
    } catch (error) {
      if (!hasErrorCode(error, 'not_found')) throw error;
    }
  }

  /** Sentences, one for each hook or program that is missing or not ours. */
  check(record: EndpointRecord): string[] {
    return this.#findings(record).map(({ text }) => text);
  }

  /** False when something may have changed since the last check or repair. Cheap. */
  unchanged(record: EndpointRecord): boolean {
    return this.#hooks.unchanged(record.endpointId, record.netns, record.interfaces);
  }

  /** Puts hooks back in their place; the kernel still holds the endpoint's policy. */
  repair(record: EndpointRecord): Repair {
    const found = this.#findings(record);
    if (isTakeover(found)) {
      this.#prepare(record);
      return { problems: [], findings: [], unprogrammed: true, upgraded: false };
    }
    // An ADD that is under way has hooks and no policy yet; giving it one is the policy reconciler's work.
    const ofHooks = found.filter(({ problem }) => problem !== 'not_programmed');
    for (const interfaceName of new Set(ofHooks.map((finding) => finding.interfaceName))) {
      this.attach(record, interfaceName);
    }
    // Other programs may ask for another mark.
    const isUpgraded = ofHooks.some(({ problem }) => problem === 'outdated_program');
    const ofUpgrades = isUpgraded ? ['outdated_program', 'node_mark_missing'] : [];
    const wrong = ofHooks.filter(({ problem }) => !ofUpgrades.includes(problem));
    return {
      problems: [...new Set(wrong.map(({ problem }) => problem))],
      findings: wrong.map(({ text }) => text),
      unprogrammed: found.length > ofHooks.length,
      upgraded: ofHooks.length > wrong.length,
    };
  }

  /** False also when the namespace is gone: nothing is enforced there. */
  isTakingOver(record: EndpointRecord): boolean {
    try {
      return isTakeover(this.#findings(record));
    } catch {
      return false;
    }
  }

  /** Everything that a policy needs to be written, and its programs to judge by it from their first packet on. */
  #prepare(record: EndpointRecord): void {
    const { endpointId, netns, interfaces } = record;
    this.#hooks.register(endpointId);
    for (const interfaceName of interfaces) {
      if (interfaceName === podVethName) this.#hooks.markNode({ endpointId, netns, interfaceName });
    }
  }

  /** Names on bpffs that had been removed and are back. */
  restorePins(records: readonly EndpointRecord[]): string[] {
    return this.#hooks.restorePins(new Map(records.map((record) => [record.endpointId, record.interfaces])));
  }

  /** What the kernel holds of endpoints without a record. */
  orphans(records: readonly EndpointRecord[]): ReturnType<EndpointHooks['orphans']> {
    return this.#hooks.orphans(new Set(records.map((record) => record.endpointId)));
  }

  removeOrphan(endpointId: number): void {
    this.#hooks.detachEndpoint(endpointId);
  }

  /** Links of Sluice's programs on an interface, whichever agent put them there. */
  sluiceLinksOn(place: HookPlace): number[] {
    return this.#hooks
      .programsOn(place)
      .filter((program) => programNames.includes(program.name))
      .map((program) => program.linkId);
  }

  #findings(record: EndpointRecord): { readonly problem: string; readonly text: string; interfaceName: string }[] {
    const { endpointId, netns } = record;
    return record.interfaces.flatMap((interfaceName) => {
      const found = this.#hooks.checkEndpoint(endpointId, netns, interfaceName);
      const unmarked =
        interfaceName === podVethName && !this.#hooks.isNodeMarked({ endpointId, netns, interfaceName })
          ? [{ problem: 'node_mark_missing', message: 'what the node sends is not told from what it forwards' }]
          : [];
      return [...found, ...unmarked].map(({ problem, message }) => ({
        problem,
        interfaceName,
        text: `${interfaceName}: ${message}`,
      }));
    });
  }
}

/**
 * Its hooks have programs over maps that this agent has replaced: they go on with the policy that they know until the new maps
 * have it too. Anything else that is wrong is put right at once.
 */
function isTakeover(found: readonly { readonly problem: string }[]): boolean {
  const problems = new Set(found.map(({ problem }) => problem));
  const isWaiting = problems.delete('outdated_program') && problems.delete('not_programmed');
  problems.delete('node_mark_missing'); // kept in the maps, so it is missing in new ones
  return isWaiting && problems.size === 0;
}
