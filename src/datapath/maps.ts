/**
 * The maps, all but one pinned: created when absent, adopted when they fit, else replaced behind what is in force
 * (map-takeover.ts). They outlive the process; the programs hold them too.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../core/error.ts';
import { BpfMap, mapDifferences, type CollectionSpec, type MapSpec } from '../kernel/index.ts';
import { ABI_VERSION, configStruct, unchangedSince } from './abi.ts';
import { finishReplacement, readForeignConfig, replaceMaps } from './map-takeover.ts';

export const mapNames = [
  'endpoints',
  'policy',
  'ipcache',
  'conntrack',
  'fragments',
  'correspondents',
  'metrics',
  'forwarded',
  'rule_counters',
  'events',
  'event_budgets',
  'event_losses',
  'config',
  'scratch',
] as const;
export type MapName = (typeof mapNames)[number];

/** `forwarded` has two elements for each of `endpoints`. */
type FixedMapName = 'config' | 'event_losses' | 'forwarded' | 'scratch';

function isFixed(name: MapName): name is FixedMapName {
  return name === 'config' || name === 'event_losses' || name === 'forwarded' || name === 'scratch';
}

/** Entries per map; the defaults are those of bpf/maps.h. A map that exists and is not named keeps its size. */
export type MapLimits = Partial<Record<Exclude<MapName, FixedMapName>, number>>;

/** Maps whose size may be chosen. */
export const sizedMapNames = mapNames.filter((name): name is keyof MapLimits => !isFixed(name));

const configKey = new Uint8Array(4);

export interface OpenMapsOptions {
  readonly abiVersion?: number | undefined;
  /** False: throws already_exists instead of replacing maps that do not fit. */
  readonly mayReplace?: boolean | undefined;
  /** Told why. */
  readonly onReplaced?: ((misfits: readonly string[]) => void) | undefined;
}

export class DatapathMaps implements Disposable {
  readonly byName: Readonly<Record<MapName, BpfMap>>;
  readonly #bpffsDir: string;

  private constructor(byName: Readonly<Record<MapName, BpfMap>>, bpffsDir: string) {
    this.byName = byName;
    this.#bpffsDir = bpffsDir;
  }

  static open(bpffsDir: string, spec: CollectionSpec, limits: MapLimits, options: OpenMapsOptions = {}): DatapathMaps {
    const { abiVersion = ABI_VERSION, mayReplace = true, onReplaced } = options;
    const wanted = mapNames.map((name) => mapSpecOf(spec, name, limits));
    if (mayReplace) finishReplacement(bpffsDir);
    const misfits = findMisfits(bpffsDir, wanted, limits, abiVersion);
    if (misfits.length > 0) {
      if (!mayReplace) throw misfit(bpffsDir, misfits);
      replaceAll(bpffsDir, wanted, limits, abiVersion);
      onReplaced?.(misfits);
    }
    const opened: Partial<Record<MapName, BpfMap>> = {};
    try {
      for (const map of wanted) opened[map.name as MapName] = openMap(bpffsDir, map);
      const maps = new DatapathMaps(opened as Record<MapName, BpfMap>, bpffsDir);
      if (maps.readConfig().abiVersion === 0) maps.writeConfig({ abiVersion });
      return maps;
    } catch (error) {
      for (const map of Object.values(opened)) map.close();
      throw error;
    }
  }

  readConfig(): ReturnType<typeof configStruct.decode> {
    return configStruct.decode(this.byName.config.lookup(configKey) ?? new Uint8Array(configStruct.size));
  }

  writeConfig(change: Partial<ReturnType<typeof configStruct.decode>>): void {
    this.byName.config.update(configKey, configStruct.encode({ ...this.readConfig(), ...change }));
  }

  /** Pins again what lost its name; answers the paths. */
  restorePins(): string[] {
    return mapNames.flatMap((name) => {
      const path = join(this.#bpffsDir, name);
      if (!isPinned(name) || existsSync(path)) return [];
      this.byName[name].pin(path);
      return [path];
    });
  }

  close(): void {
    for (const map of Object.values(this.byName)) map.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function mapSpecOf(spec: CollectionSpec, name: MapName, limits: MapLimits): MapSpec {
  const map = spec.maps.get(name);
  if (map === undefined) {
    throw new SluiceError({
      code: 'bad_object_file',
      operation: 'open datapath',
      object: spec.name,
      what: `no map ${name}`,
    });
  }
  const limit =
    name === 'forwarded' && limits.endpoints !== undefined
      ? limits.endpoints * 2
      : isFixed(name)
        ? undefined
        : limits[name];
  return limit === undefined ? map : { ...map, maxEntries: limit };
}

/** Nothing in the scratch map outlives a packet, and its layout is the programs' own affair. */
function isPinned(name: string): boolean {
  return name !== 'scratch';
}

function openMap(bpffsDir: string, wanted: MapSpec): BpfMap {
  if (!isPinned(wanted.name)) return BpfMap.create(wanted);
  const path = join(bpffsDir, wanted.name);
  const existing = BpfMap.openPinned(path);
  if (existing !== undefined) return existing;
  const created = BpfMap.create(wanted);
  created.pin(path);
  return created;
}

/** Why the maps there cannot be adopted; empty when they can, or when there are none. */
function findMisfits(bpffsDir: string, wanted: readonly MapSpec[], limits: MapLimits, abiVersion: number): string[] {
  const present = wanted.filter(({ name }) => isPinned(name) && existsSync(join(bpffsDir, name)));
  if (present.length === 0) return [];
  const differences = present.flatMap((spec) =>
    differencesOf(bpffsDir, spec, limits).map((difference) => `${spec.name}: ${difference}`),
  );
  const config = readForeignConfig(bpffsDir);
  if (config === undefined) return ['there is no config', ...differences];
  if (config.abiVersion === abiVersion) return differences;
  return [`version ${config.abiVersion} of the layout, where this program has ${abiVersion}`, ...differences];
}

function differencesOf(bpffsDir: string, wanted: MapSpec, limits: MapLimits): string[] {
  using existing = BpfMap.openPinned(join(bpffsDir, wanted.name));
  if (existing === undefined) return [];
  const { maxEntries } = isSizeAsked(wanted.name, limits) ? wanted : existing.spec;
  return mapDifferences({ ...wanted, maxEntries }, existing.spec);
}

/** `forwarded` follows `endpoints`. */
function isSizeAsked(name: string, limits: MapLimits): boolean {
  return Object.hasOwn(limits, name === 'forwarded' ? 'endpoints' : name);
}

function replaceAll(bpffsDir: string, wanted: readonly MapSpec[], limits: MapLimits, abiVersion: number): void {
  const before = readForeignConfig(bpffsDir);
  const isKept = (spec: MapSpec): boolean => {
    const since = (unchangedSince as Readonly<Record<string, number>>)[spec.name];
    if (since === undefined || before === undefined) return false;
    if (before.abiVersion < since || before.abiVersion > abiVersion) return false;
    return existsSync(join(bpffsDir, spec.name)) && differencesOf(bpffsDir, spec, limits).length === 0;
  };
  const kept = wanted.filter(isKept).map(({ name }) => name);
  // Above all revisions that connections were judged under: each is judged again.
  const { lastPolicyId = 0, epoch = 0 } = before ?? {};
  const config = configStruct.encode({ epoch: (epoch + 1) >>> 0, abiVersion, lastPolicyId, flags: 0 });
  const pinned = wanted.filter(({ name }) => isPinned(name));
  const sized = pinned.map((spec) => (isSizeAsked(spec.name, limits) ? spec : { ...spec, ...sizeOf(bpffsDir, spec) }));
  replaceMaps(bpffsDir, sized, new Set(kept), (map) => map.update(configKey, config));
}

/** Of the map that is there, when it has one that this version could have been given. */
function sizeOf(bpffsDir: string, { name, type, keySize }: MapSpec): { readonly maxEntries?: number } {
  if (isFixed(name as MapName) && name !== 'forwarded') return {};
  using existing = BpfMap.openPinned(join(bpffsDir, name));
  const fits = existing?.spec.type === type && existing.spec.keySize === keySize;
  return fits ? { maxEntries: existing.spec.maxEntries } : {};
}

function misfit(object: string, misfits: readonly string[]): SluiceError {
  return new SluiceError({
    code: 'already_exists',
    operation: 'adopt pinned maps of',
    object,
    what: misfits.join('; '),
    remedy: 'an agent of this version replaces them when it starts',
  });
}
