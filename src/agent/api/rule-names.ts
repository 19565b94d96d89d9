/** Rules by number for people: also those of policies that are gone, as long as events may still name them. */
import type { RuleName } from '../../api/agent-api.ts';
import type { Clock } from '../../core/clock.ts';
import { ruleNameOf } from '../../policy/describe.ts';
import type { PolicyIndex } from '../../policy/policy-index.ts';
import type { RuleIds, RuleRef } from '../../policy/rule-id.ts';
import { agentLimits } from '../limits.ts';

export interface RuleNamesDeps {
  /** Those of the policy reconciler: what it has compiled, it has given numbers. */
  readonly ids: RuleIds;
  readonly policies: () => PolicyIndex;
  readonly clock: Clock;
}

export class RuleNames {
  readonly #deps: RuleNamesDeps;
  /** Policy uid → when it was first seen to be gone. */
  readonly #goneSince = new Map<string, number>();

  constructor(deps: RuleNamesDeps) {
    this.#deps = deps;
  }

  nameOf(id: number): RuleName {
    const { ids } = this.#deps;
    const name = ruleNameOf(id, (one) => ids.lookup(one));
    const rule = ids.lookup(id);
    if (name.kind !== 'policy' || rule === undefined || this.#exists(rule)) return name;
    return { ...name, gone: true };
  }

  /** Forgets the rules of policies that are gone for long. To be called every now and then. */
  prune(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const rules = new Map(this.#deps.ids.entries().map(([, rule]) => [rule.uid, rule]));
    for (const [uid, rule] of rules) {
      if (this.#policyOf(rule) !== undefined) this.#goneSince.delete(uid);
      else if (!this.#goneSince.has(uid)) this.#goneSince.set(uid, nowMs);
    }
    for (const [uid, sinceMs] of this.#goneSince) {
      if (nowMs - sinceMs < agentLimits.ruleNameRetentionMs) continue;
      this.#deps.ids.forgetPolicy(uid);
      this.#goneSince.delete(uid);
    }
  }

  #exists(rule: RuleRef): boolean {
    const rules = this.#policyOf(rule)?.rules ?? [];
    return rules.some(({ direction, index }) => direction === rule.direction && index === rule.ruleIndex);
  }

  /** Another policy of the same name is not the one that made the rule. */
  #policyOf({ uid, namespace, name }: RuleRef) {
    const policy = this.#deps.policies().get(namespace, name);
    return policy?.uid === uid ? policy : undefined;
  }
}
