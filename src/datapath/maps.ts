/** The maps, all but one pinned: created when absent, adopted when they fit. They outlive the process; the programs hold them too. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../core/error.ts';
import { BpfMap, mapDifferences, type CollectionSpec, type MapSpec } from '../kernel/index.ts';
import { ABI_VERSION, configStruct } from './abi.ts';

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

/** Entries per map; the defaults are those of bpf/maps.h. Only maps that do not exist yet take a new size. */
export type MapLimits = Partial<Record<Exclude<MapName, FixedMapName>, number>>;

/** Maps whose size may be chosen. */
export const sizedMapNames = mapNames.filter((name): name is keyof MapLimits => !isFixed(name));

const configKey = new Uint8Array(4);

export class DatapathMaps implements Disposable {
  readonly byName: Readonly<Record<MapName, BpfMap>>;
  readonly #bpffsDir: string;

  private constructor(byName: Readonly<Record<MapName, BpfMap>>, bpffsDir: string) {
    this.byName = byName;
    this.#bpffsDir = bpffsDir;
  }

  static open(bpffsDir: string, spec: CollectionSpec, limits: MapLimits): DatapathMaps {
    const opened: Partial<Record<MapName, BpfMap>> = {};
    try {
      for (const name of mapNames) opened[name] = openMap(join(bpffsDir, name), mapSpecOf(spec, name, limits));
      const maps = new DatapathMaps(opened as Record<MapName, BpfMap>, bpffsDir);
      maps.#checkVersion(bpffsDir);
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

  #checkVersion(bpffsDir: string): void {
    const { abiVersion } = this.readConfig();
    if (abiVersion === ABI_VERSION) return;
    if (abiVersion === 0) this.writeConfig({ abiVersion: ABI_VERSION });
    else throw incompatible(bpffsDir, `they have version ${abiVersion} of the layout, this program ${ABI_VERSION}`);
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

function openMap(path: string, wanted: MapSpec): BpfMap {
  if (!isPinned(wanted.name)) return BpfMap.create(wanted);
  const existing = BpfMap.openPinned(path);
  if (existing === undefined) {
    const created = BpfMap.create(wanted);
    created.pin(path);
    return created;
  }
  // Another size is no obstacle: the limit then takes effect when the maps are made anew.
  const differences = mapDifferences({ ...wanted, maxEntries: existing.spec.maxEntries }, existing.spec);
  if (differences.length === 0) return existing;
  existing.close();
  throw incompatible(path, differences.join('; '));
}

function incompatible(object: string, what: string): SluiceError {
  return new SluiceError({
    code: 'already_exists',
    operation: 'adopt pinned maps of',
    object,
    what,
    remedy: 'drain the node, remove the directory and start again: pods lose enforcement with it',
  });
}
