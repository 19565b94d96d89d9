/** What an endpoint's policy is in the kernel, and how two of them differ. */
import {
  compareEntries,
  distinctEntries,
  mergeEntries,
  type EndpointPolicy,
  type PolicyEntry,
} from '../policy/compile.ts';
import { EntryList } from '../policy/entry-list.ts';
import { anyIdentity, type IdentityId } from '../policy/identity.ts';
import type { PolicyChange } from '../policy/pod-compiler.ts';
import { everyPort } from '../policy/port.ts';
import { noRule } from '../policy/rule-id.ts';

export interface ProgrammedPolicy extends Pick<EndpointPolicy, 'isolated'> {
  readonly entries: EntryList;
  /** What policy would drop passes and is reported. */
  readonly audit?: boolean;
}

export interface WantedPolicy extends ProgrammedPolicy {
  readonly change?: PolicyChange | undefined;
}

const directions = ['ingress', 'egress'] as const;

/**
 * What `current` lacks so that the identities in `created`, which it does not know, are let in by it where `wanted` lets
 * them in. What is for anyone in `wanted` is for anyone at once: an entry for each identity would fill the map when, after a
 * restart, all of them are new.
 */
export function missingEntries(
  current: ProgrammedPolicy,
  wanted: WantedPolicy,
  created: ReadonlySet<IdentityId>,
): readonly PolicyEntry[] {
  if (current.entries === wanted.entries && sameModes(current, wanted)) return [];
  const change = changeOf(current, wanted);
  // It is of identities alone, and opens no direction.
  if (change !== undefined) return change.added.filter(({ identity }) => created.has(identity));
  const isKnown = (entry: PolicyEntry): boolean =>
    current.entries.items.some((other) => other.identity === anyIdentity && compareEntries(entry, other) === 0);
  const missing = wanted.entries.items.filter(
    (entry) => created.has(entry.identity) || (entry.identity === anyIdentity && !isKnown(entry)),
  );
  const everything = { identity: anyIdentity, ...everyPort, ruleId: noRule, action: 'allow' } as const;
  const opened = directions
    .filter((direction) => !passes(current, direction) && passes(wanted, direction))
    .map((direction) => ({ direction, ...everything }));
  return distinctEntries([...missing, ...opened.filter((entry) => !isKnown(entry))]);
}

/** The entries of `current` with `extra`: mostly those that are wanted, and then that list, so that the next look at it is short. */
export function widened(current: ProgrammedPolicy, extra: readonly PolicyEntry[], wanted: WantedPolicy): EntryList {
  const change = changeOf(current, wanted);
  // `extra` is then of what was added.
  const isWanted = change !== undefined && change.gone.size === 0 && change.added.length === extra.length;
  return isWanted ? wanted.entries : EntryList.of(mergeEntries(current.entries.items, extra));
}

/** How `wanted` comes from `current`, where that is known and more than their entries does not differ. */
export function changeOf(current: ProgrammedPolicy, wanted: WantedPolicy): PolicyChange | undefined {
  const { change } = wanted;
  return change?.from === current.entries && sameModes(current, wanted) ? change : undefined;
}

/** Whether everything passes, allowed or only reported. */
function passes({ isolated, audit }: ProgrammedPolicy, direction: (typeof directions)[number]): boolean {
  return !isolated[direction] || audit === true;
}

/** Whether `a` is `b`, or closed where `b` isolates. */
export function isWithin(a: ProgrammedPolicy, b: ProgrammedPolicy): boolean {
  if (samePolicy(a, b)) return true;
  const closes = directions.every((direction) => a.isolated[direction] || !b.isolated[direction]);
  return a.entries.length === 0 && a.audit !== true && closes;
}

export function samePolicy(a: ProgrammedPolicy, b: ProgrammedPolicy): boolean {
  return sameModes(a, b) && a.entries.equals(b.entries);
}

function sameModes(a: ProgrammedPolicy, b: ProgrammedPolicy): boolean {
  const sameAudit = (a.audit === true) === (b.audit === true);
  return sameAudit && a.isolated.ingress === b.isolated.ingress && a.isolated.egress === b.isolated.egress;
}
