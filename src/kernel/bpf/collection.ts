/**
 * A BPF object file as plain data ({@link parseCollection}), and as kernel objects ({@link loadCollection}).
 *
 * Understood: maps defined with BTF in `.maps`, read-only constants in `.rodata`, programs in `tc…` and `cgroup/…`
 * sections that refer to both. Calls between functions are refused: our programs are self-contained by design (D5).
 */
import { SluiceError } from '../../core/error.ts';
import { Btf, type BtfType } from './btf.ts';
import {
  type ElfFile,
  type ElfRelocation,
  type ElfSection,
  malformed,
  parseElf,
  relocationsOf,
  sectionNamed,
} from './elf.ts';
import { BpfMap, MapFlag, type MapSpec, MapType } from './map.ts';
import { BpfProgram, ProgramType } from './program.ts';

/** One reference from an instruction to a map, or to a place in the constants. */
export interface ProgramReference {
  readonly instructionOffset: number;
  readonly target: { readonly map: string } | { readonly constantsOffset: number };
}

export interface ProgramSpec {
  readonly name: string;
  readonly sectionName: string;
  readonly type: number;
  readonly instructions: Uint8Array;
  readonly references: readonly ProgramReference[];
}

/** Deterministic: the same file gives the same spec on any machine. */
export interface CollectionSpec {
  readonly name: string;
  readonly maps: ReadonlyMap<string, MapSpec>;
  readonly programs: ReadonlyMap<string, ProgramSpec>;
  /** The bytes of .rodata as compiled. */
  readonly constants: Uint8Array;
  /** Where each `const volatile` variable lies in them. */
  readonly constantOffsets: ReadonlyMap<string, { readonly offset: number; readonly size: number }>;
  readonly license: string;
  readonly btf: Btf;
}

export interface LoadOptions {
  /** Maps that exist already, by name; they stay the caller's. The others are created. */
  readonly maps?: Readonly<Record<string, BpfMap>>;
  /** New values for constants, by variable name, as the image the program reads (little endian). */
  readonly constants?: Readonly<Record<string, Uint8Array>>;
}

/** Owns the programs and the maps that it created. */
export class Collection implements Disposable {
  readonly maps: ReadonlyMap<string, BpfMap>;
  readonly programs: ReadonlyMap<string, BpfProgram>;
  readonly #owned: readonly Disposable[];

  constructor(
    maps: ReadonlyMap<string, BpfMap>,
    programs: ReadonlyMap<string, BpfProgram>,
    owned: readonly Disposable[],
  ) {
    this.maps = maps;
    this.programs = programs;
    this.#owned = owned;
  }

  program(name: string): BpfProgram {
    const program = this.programs.get(name);
    if (program === undefined)
      throw new SluiceError({
        code: 'not_found',
        operation: 'find program',
        object: name,
        what: 'the object has none of this name',
      });
    return program;
  }

  close(): void {
    for (const object of this.#owned) object[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const R_BPF_64_64 = 1;
const SHF_STT_FUNC = 2;
const BPF_PSEUDO_MAP_FD = 1;
const BPF_PSEUDO_MAP_VALUE = 2;
const LD_IMM64 = 0x18;
/** Pinned maps, shared by name between programs, are the datapath's business; this is only the kernel's own limit. */
const constantsMapName = '.rodata';

export function parseCollection(bytes: Uint8Array, name: string): CollectionSpec {
  const file = parseElf(bytes, name);
  const btfSection = sectionNamed(file, '.BTF');
  if (btfSection === undefined) throw malformed(name, 'it has no .BTF section (compile with -g)');
  const btf = Btf.parse(btfSection.data, name);
  const constants = sectionNamed(file, '.rodata');
  const license = sectionNamed(file, 'license');
  return {
    name,
    maps: parseMaps(btf, name),
    programs: parsePrograms(file, name),
    constants: constants?.data ?? new Uint8Array(),
    constantOffsets: new Map(
      file.symbols
        .filter((symbol) => constants !== undefined && symbol.sectionIndex === constants.index && symbol.name !== '')
        .map((symbol) => [symbol.name, { offset: symbol.value, size: symbol.size }]),
    ),
    license: new TextDecoder().decode(license?.data ?? new Uint8Array()).replace(/\0.*$/s, ''),
    btf,
  };
}

export function loadCollection(spec: CollectionSpec, options: LoadOptions = {}): Collection {
  const owned: Disposable[] = [];
  const maps = new Map<string, BpfMap>(Object.entries(options.maps ?? {}));
  const programs = new Map<string, BpfProgram>();
  try {
    for (const [name, mapSpec] of spec.maps) {
      if (maps.has(name)) continue;
      const map = BpfMap.create(mapSpec);
      owned.push(map);
      maps.set(name, map);
    }
    // Only the programs refer to it, and they keep it alive.
    using constants = createConstants(spec, options.constants ?? {});
    for (const [name, program] of spec.programs) {
      const instructions = resolveReferences(program, maps, constants);
      const loaded = BpfProgram.load({ name, type: program.type, instructions, license: spec.license });
      owned.push(loaded);
      programs.set(name, loaded);
    }
  } catch (error) {
    for (const object of owned) object[Symbol.dispose]();
    throw error;
  }
  return new Collection(maps, programs, owned);
}

function createConstants(spec: CollectionSpec, values: Readonly<Record<string, Uint8Array>>): BpfMap | undefined {
  if (spec.constants.length === 0) return undefined;
  const image = new Uint8Array(spec.constants);
  for (const [name, value] of Object.entries(values)) {
    const place = spec.constantOffsets.get(name);
    if (place?.size !== value.length) throw malformed(spec.name, `it has no constant ${name} of ${value.length} bytes`);
    image.set(value, place.offset);
  }
  const map = BpfMap.create({
    name: constantsMapName,
    type: MapType.array,
    keySize: 4,
    valueSize: image.length,
    maxEntries: 1,
    flags: MapFlag.readOnlyProgram,
  });
  try {
    map.update(new Uint8Array(4), image);
    map.freeze();
    return map;
  } catch (error) {
    map.close();
    throw error;
  }
}

/** Puts map descriptors into the two halves of each 64-bit load (BPF_LD_IMM64, Documentation/bpf/standardization). */
function resolveReferences(
  program: ProgramSpec,
  maps: ReadonlyMap<string, BpfMap>,
  constants: BpfMap | undefined,
): Uint8Array {
  const bytes = new Uint8Array(program.instructions);
  const view = new DataView(bytes.buffer);
  for (const { instructionOffset, target } of program.references) {
    const map = 'map' in target ? maps.get(target.map) : constants;
    if (map === undefined)
      throw new SluiceError({
        code: 'internal',
        operation: 'load program',
        object: program.name,
        what: 'it refers to a map that the object does not define',
      });
    const pseudo = 'map' in target ? BPF_PSEUDO_MAP_FD : BPF_PSEUDO_MAP_VALUE;
    bytes[instructionOffset + 1] = ((bytes[instructionOffset + 1] ?? 0) & 0x0f) | (pseudo << 4);
    view.setInt32(instructionOffset + 4, map.fd, true);
    view.setInt32(instructionOffset + 12, 'map' in target ? 0 : target.constantsOffset, true);
  }
  return bytes;
}

function parsePrograms(file: ElfFile, name: string): Map<string, ProgramSpec> {
  const programs = new Map<string, ProgramSpec>();
  for (const section of file.sections) {
    const type = programTypeOf(section.name);
    if (type === undefined || section.data.length === 0) continue;
    const relocations = relocationsOf(file, section);
    for (const symbol of file.symbols.filter((s) => s.sectionIndex === section.index && s.type === SHF_STT_FUNC)) {
      const end = symbol.value + symbol.size;
      const own = relocations.filter((relocation) => relocation.offset >= symbol.value && relocation.offset < end);
      const instructions = section.data.subarray(symbol.value, end);
      const references = own.map((relocation) => parseReference(file, section, relocation, symbol.value, name));
      programs.set(symbol.name, { name: symbol.name, sectionName: section.name, type, instructions, references });
    }
  }
  return programs;
}

function programTypeOf(sectionName: string): number | undefined {
  if (/^(tc|tcx|classifier)(\/|$)/.test(sectionName)) return ProgramType.schedCls;
  if (/^cgroup_skb(\/|$)/.test(sectionName)) return ProgramType.cgroupSkb;
  if (/^cgroup\/(connect|sendmsg|recvmsg|getpeername)[46]$/.test(sectionName)) return ProgramType.cgroupSockAddr;
  return undefined;
}

function parseReference(
  file: ElfFile,
  section: ElfSection,
  relocation: ElfRelocation,
  programStart: number,
  name: string,
): ProgramReference {
  const target = file.sections[relocation.symbol.sectionIndex];
  if (relocation.type !== R_BPF_64_64 || section.data[relocation.offset] !== LD_IMM64 || target === undefined) {
    throw malformed(
      name,
      `its program in ${section.name} refers to ${relocation.symbol.name || 'another function'} in a way that is not supported (relocation type ${relocation.type})`,
    );
  }
  const instructionOffset = relocation.offset - programStart;
  if (target.name === '.maps') return { instructionOffset, target: { map: relocation.symbol.name } };
  const addend = new DataView(section.data.buffer, section.data.byteOffset + relocation.offset + 4, 4).getInt32(
    0,
    true,
  );
  if (target.name === '.rodata')
    return { instructionOffset, target: { constantsOffset: relocation.symbol.value + addend } };
  throw malformed(name, `its program in ${section.name} uses ${target.name}; only maps and constants are supported`);
}

function parseMaps(btf: Btf, name: string): Map<string, MapSpec> {
  const section = btf.find('datasec', '.maps');
  const maps = new Map<string, MapSpec>();
  for (const id of section?.variableIds ?? []) {
    const variable = btf.type(id);
    const definition = variable === undefined ? undefined : btf.resolve(variable.typeId);
    if (variable === undefined || definition?.kind !== 'struct')
      throw malformed(name, 'a map definition is not a struct');
    maps.set(variable.name, parseMap(btf, variable.name, definition, name));
  }
  return maps;
}

/** `__uint(x, N)` is a pointer to an array of N ints, `__type(x, T)` a pointer to T, `__array(values, M)` an array of pointers to M. */
function parseMap(btf: Btf, mapName: string, definition: BtfType, name: string): MapSpec {
  const member = (field: string): BtfType | undefined => {
    const typeId = definition.members.find((candidate) => candidate.name === field)?.typeId;
    return typeId === undefined ? undefined : btf.resolve(typeId);
  };
  const number = (field: string): number => btf.resolve(member(field)?.typeId ?? 0)?.elementCount ?? 0;
  const size = (field: string): number => {
    const pointer = member(field);
    return pointer === undefined ? number(`${field}_size`) : (btf.sizeOf(pointer.typeId) ?? 0);
  };
  const type = number('type');
  if (type === 0) throw malformed(name, `the map ${mapName} has no type`);
  const inner = innerMap(btf, mapName, member('values'), name);
  const valueSize = inner === undefined ? size('value') : 4;
  return {
    name: mapName,
    type,
    keySize: size('key'),
    valueSize,
    maxEntries: number('max_entries'),
    flags: number('map_flags'),
    ...(inner === undefined ? {} : { inner }),
  };
}

function innerMap(btf: Btf, mapName: string, values: BtfType | undefined, name: string): MapSpec | undefined {
  if (values === undefined) return undefined;
  const pointer = btf.resolve(values.typeId);
  const definition = btf.resolve(pointer?.typeId ?? 0);
  if (definition?.kind !== 'struct') throw malformed(name, `the map ${mapName} holds maps of an unknown shape`);
  return parseMap(btf, `${mapName}_inner`, definition, name);
}
