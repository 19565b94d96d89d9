/** Rules by number: what entries carry into the kernel and events bring back. */

import { compareText } from '../core/labels.ts';
import type { Direction } from './node.ts';

/** No rule decided. */
export const noRule = 0;
/** Kubernetes itself: the node may always reach its pods. */
export const hostRule = 1;
/** Below this, numbers are reserved. */
const firstRuleId = 256;

export interface RuleRef {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly direction: Direction;
  readonly ruleIndex: number;
}

/**
 * Numbers for rules, the same in every run and on every node: a hash of (policy uid, direction, index). When two
 * rules collide, the one that comes second gets the next free number.
 */
export class RuleIds {
  readonly #byId = new Map<number, RuleRef>();
  readonly #byKey = new Map<string, number>();

  get size(): number {
    return this.#byId.size;
  }

  idOf(rule: RuleRef): number {
    const key = keyOf(rule);
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    let id = hash32(key);
    while (id < firstRuleId || this.#byId.has(id)) id = (id + 1) >>> 0;
    this.#byKey.set(key, id);
    this.#byId.set(id, Object.freeze({ ...rule }));
    return id;
  }

  lookup(id: number): RuleRef | undefined {
    return this.#byId.get(id);
  }

  /** Forgets the rules of a policy that is gone. Keep them while events may still name them. */
  forgetPolicy(uid: string): void {
    for (const [id, rule] of this.#byId) {
      if (rule.uid !== uid) continue;
      this.#byId.delete(id);
      this.#byKey.delete(keyOf(rule));
    }
  }

  /** All rules, by policy and index. */
  entries(): [number, RuleRef][] {
    return [...this.#byId].sort(([, a], [, b]) => compareText(keyOf(a), keyOf(b)));
  }
}

function keyOf({ uid, direction, ruleIndex }: RuleRef): string {
  return `${uid}/${direction}/${ruleIndex}`;
}

/** FNV-1a, then the final mix of MurmurHash3, since FNV spreads a changed last character badly. */
function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
