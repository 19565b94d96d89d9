/** Reads what clang -target bpf makes: ELF64, little endian, relocatable (System V ABI, chapter 4). */
import { SluiceError } from '../../core/error.ts';

export interface ElfSection {
  readonly index: number;
  readonly name: string;
  readonly type: number;
  /** For relocations: the section they apply to (sh_info). */
  readonly info: number;
  readonly data: Uint8Array;
}

export interface ElfSymbol {
  readonly name: string;
  readonly value: number;
  readonly size: number;
  readonly sectionIndex: number;
  /** STT_*: 2 function, 3 section. */
  readonly type: number;
}

export interface ElfRelocation {
  readonly offset: number;
  readonly type: number;
  readonly symbol: ElfSymbol;
}

export interface ElfFile {
  readonly sections: readonly ElfSection[];
  readonly symbols: readonly ElfSymbol[];
}

const EM_BPF = 247;
const SHT_SYMTAB = 2;
const SHT_REL = 9;
const SHT_NOBITS = 8;
const sectionHeaderLength = 64;
const symbolLength = 24;
const relocationLength = 16;

export function parseElf(bytes: Uint8Array, name: string): ElfFile {
  const view = viewOf(bytes);
  const isElf64Le = bytes.length >= 64 && view.getUint32(0, false) === 0x7f45_4c46 && bytes[4] === 2 && bytes[5] === 1;
  if (!isElf64Le || view.getUint16(18, true) !== EM_BPF)
    throw malformed(name, 'it is not a little-endian ELF64 object for BPF');
  const sections = parseSections(bytes, view, name);
  const symbolTable = sections.find((section) => section.type === SHT_SYMTAB);
  return { sections, symbols: symbolTable === undefined ? [] : parseSymbols(symbolTable, sections) };
}

/** The relocations of one section, in offset order. */
export function relocationsOf(file: ElfFile, section: ElfSection): ElfRelocation[] {
  const table = file.sections.find((candidate) => candidate.type === SHT_REL && candidate.info === section.index);
  if (table === undefined) return [];
  const view = viewOf(table.data);
  const relocations: ElfRelocation[] = [];
  for (let at = 0; at + relocationLength <= table.data.length; at += relocationLength) {
    const info = view.getBigUint64(at + 8, true);
    const symbol = file.symbols[Number(info >> 32n)];
    if (symbol !== undefined)
      relocations.push({ offset: Number(view.getBigUint64(at, true)), type: Number(info & 0xffff_ffffn), symbol });
  }
  return relocations.sort((a, b) => a.offset - b.offset);
}

export function sectionNamed(file: ElfFile, name: string): ElfSection | undefined {
  return file.sections.find((section) => section.name === name);
}

export function malformed(name: string, what: string): SluiceError {
  return new SluiceError({
    code: 'bad_object_file',
    operation: 'read BPF object',
    object: name,
    what,
    remedy: 'rebuild it: make -C bpf',
  });
}

function parseSections(bytes: Uint8Array, view: DataView, name: string): ElfSection[] {
  const tableOffset = Number(view.getBigUint64(40, true));
  const count = view.getUint16(60, true);
  const namesIndex = view.getUint16(62, true);
  if (tableOffset + count * sectionHeaderLength > bytes.length) throw malformed(name, 'its section table is cut off');
  const raw = Array.from({ length: count }, (_, index) =>
    readSectionHeader(bytes, view, tableOffset + index * sectionHeaderLength),
  );
  const names = raw[namesIndex]?.data ?? new Uint8Array();
  return raw.map((section, index) => ({
    index,
    name: stringAt(names, section.nameOffset),
    type: section.type,
    info: section.info,
    data: section.data,
  }));
}

function readSectionHeader(
  bytes: Uint8Array,
  view: DataView,
  at: number,
): { nameOffset: number; type: number; info: number; data: Uint8Array } {
  const type = view.getUint32(at + 4, true);
  const offset = Number(view.getBigUint64(at + 24, true));
  const size = Number(view.getBigUint64(at + 32, true));
  const data = type === SHT_NOBITS ? new Uint8Array(size) : bytes.subarray(offset, offset + size);
  return { nameOffset: view.getUint32(at, true), type, info: view.getUint32(at + 44, true), data };
}

function parseSymbols(table: ElfSection, sections: readonly ElfSection[]): ElfSymbol[] {
  const view = viewOf(table.data);
  // LLVM keeps section and symbol names in one table.
  const names = sections.find((section) => section.name === '.strtab')?.data ?? new Uint8Array();
  const symbols: ElfSymbol[] = [];
  for (let at = 0; at + symbolLength <= table.data.length; at += symbolLength) {
    symbols.push({
      name: stringAt(names, view.getUint32(at, true)),
      type: (table.data[at + 4] ?? 0) & 0xf,
      sectionIndex: view.getUint16(at + 6, true),
      value: Number(view.getBigUint64(at + 8, true)),
      size: Number(view.getBigUint64(at + 16, true)),
    });
  }
  return symbols;
}

export function stringAt(bytes: Uint8Array, offset: number): string {
  const end = bytes.indexOf(0, offset);
  return new TextDecoder().decode(bytes.subarray(offset, end < 0 ? bytes.length : end));
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
