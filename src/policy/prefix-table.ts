/** A value for each prefix, and which prefixes lie inside another: without a look at all of them. */
import { bitsOf, prefixContains, type IpFamily, type IpPrefix } from '../core/ip.ts';
import { networkBits, type NetworkBits } from './ipcache.ts';

/** Prefixes are kept in blocks of 256 addresses, as pools of addresses are dense. */
const blockHostBits = 8;

export class PrefixTable<V extends { readonly prefix: IpPrefix }> {
  /** canonical text → value */
  readonly #values = new Map<string, V>();
  /** family → block → those inside it */
  readonly #blocks = new Map<IpFamily, Map<NetworkBits, Set<string>>>();
  /** Those that are larger than a block. */
  readonly #wide = new Map<string, IpPrefix>();

  get(text: string): V | undefined {
    return this.#values.get(text);
  }

  texts(): IterableIterator<string> {
    return this.#values.keys();
  }

  /** `text` is that of the value's prefix. */
  set(text: string, value: V): void {
    this.#values.set(text, value);
    const block = blockOf(value.prefix);
    if (block === undefined) {
      this.#wide.set(text, value.prefix);
      return;
    }
    const blocks = this.#blocksOf(value.prefix.address.family);
    blocks.set(block, (blocks.get(block) ?? new Set<string>()).add(text));
  }

  delete(text: string): void {
    const value = this.#values.get(text);
    if (value === undefined) return;
    this.#values.delete(text);
    this.#wide.delete(text);
    const block = blockOf(value.prefix);
    if (block === undefined) return;
    const blocks = this.#blocksOf(value.prefix.address.family);
    const members = blocks.get(block);
    members?.delete(text);
    if (members?.size === 0) blocks.delete(block);
  }

  /** Texts of the members that `outer` contains, itself included. */
  *inside(outer: IpPrefix): Generator<string> {
    const block = blockOf(outer);
    if (block !== undefined) {
      for (const text of this.#blocksOf(outer.address.family).get(block) ?? []) if (this.#isIn(outer, text)) yield text;
      return;
    }
    for (const [text, prefix] of this.#wide) if (prefixContains(outer, prefix)) yield text;
    for (const members of this.#blocksOf(outer.address.family).values()) {
      const [first] = members;
      if (first !== undefined && this.#isIn(outer, first)) yield* members;
    }
  }

  #isIn(outer: IpPrefix, text: string): boolean {
    const value = this.#values.get(text);
    return value !== undefined && prefixContains(outer, value.prefix);
  }

  #blocksOf(family: IpFamily): Map<NetworkBits, Set<string>> {
    const blocks = this.#blocks.get(family) ?? new Map<NetworkBits, Set<string>>();
    this.#blocks.set(family, blocks);
    return blocks;
  }
}

/** Undefined for a prefix that is larger than a block. */
function blockOf({ address, prefixLen }: IpPrefix): NetworkBits | undefined {
  const length = bitsOf(address.family) - blockHostBits;
  return prefixLen < length ? undefined : networkBits(address, length);
}
