/**
 * Maps on bpffs that do not fit (another layout, another size) are replaced as a whole by new ones, empty but for what must
 * not begin anew. The programs on the hooks hold the old maps, so what was in force stays in force until whoever knows the
 * endpoints has written their policies and swaps the programs.
 *
 * New maps are pinned in a directory of their own first, `config` last: a process that ends in between leaves a set that is
 * whole, which the next one puts in place, or one that is not, which it removes. So names never mix two versions.
 */
import { existsSync, readdirSync, renameSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { BpfMap, type MapSpec, unpin } from '../kernel/index.ts';
import { type configStruct, configPrefix } from './abi.ts';

type Config = ReturnType<typeof configStruct.decode>;

const markOfWhole = 'config';

function nextDir(bpffsDir: string): string {
  return join(bpffsDir, 'next');
}

/** What an earlier version's `config` says, whichever version it was; undefined when there is none. */
export function readForeignConfig(bpffsDir: string): Pick<Config, 'epoch' | 'abiVersion' | 'lastPolicyId'> | undefined {
  using map = BpfMap.openPinned(join(bpffsDir, markOfWhole));
  const bytes = map?.lookup(new Uint8Array(4));
  return bytes === undefined || bytes.length < configPrefix.size ? undefined : configPrefix.decode(bytes);
}

/** Puts the new maps in the place of all but `kept`, which go on under their names. */
export function replaceMaps(
  bpffsDir: string,
  wanted: readonly MapSpec[],
  kept: ReadonlySet<string>,
  initialise: (config: BpfMap) => void,
): void {
  const isMark = ({ name }: MapSpec): number => Number(name === markOfWhole);
  for (const spec of wanted.toSorted((a, b) => isMark(a) - isMark(b))) {
    if (kept.has(spec.name)) continue;
    using map = BpfMap.create(spec);
    if (spec.name === markOfWhole) initialise(map);
    map.pin(join(nextDir(bpffsDir), spec.name));
  }
  const names = new Set(wanted.map(({ name }) => name));
  for (const name of filesIn(bpffsDir)) if (!names.has(name)) unpin(join(bpffsDir, name));
  finishReplacement(bpffsDir);
}

/** Of this process or of one that ended in the middle of it. */
export function finishReplacement(bpffsDir: string): void {
  const from = nextDir(bpffsDir);
  if (!existsSync(from)) return;
  const isWhole = existsSync(join(from, markOfWhole));
  // The mark last: what is still to be moved belongs to a whole set for as long as it is there.
  const names = filesIn(from).sort((a, b) => Number(a === markOfWhole) - Number(b === markOfWhole));
  for (const name of names) {
    if (isWhole) renameSync(join(from, name), join(bpffsDir, name));
    else unpin(join(from, name));
  }
  rmdirSync(from);
}

function filesIn(dir: string): string[] {
  return readdirSync(dir).filter((name) => !statSync(join(dir, name)).isDirectory());
}
