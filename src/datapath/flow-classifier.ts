/** The classifier on a limit's HTB: bpf/shaper.bpf.c, with maps of its own. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BpfMap, BpfProgram, loadCollection, parseCollection, type RtNetlink } from '../kernel/index.ts';
import type { Filter } from '../kernel/netlink/filter.ts';
import { packageRoot } from '../kernel/package-root.ts';
import { defineStruct } from './struct.ts';

export const flowSettings = defineStruct('flow_settings', 24, {
  nsPerKilobyte: ['ns_per_kilobyte', 'u64', 0],
  allowanceBytes: ['allowance_bytes', 'u32', 8],
  sparseClass: ['sparse_class', 'u32', 12],
  bulkClass: ['bulk_class', 'u32', 16],
});

export type FlowSettings = Parameters<typeof flowSettings.encode>[0];

const programName = 'flow_class';
const priority = 1;
const handle = 1;
const theOnlyKey = new Uint8Array(4);

export function shaperObjectPath(): string {
  return join(packageRoot(), 'bpf', 'build', 'shaper.bpf.o');
}

/** `qdisc`: the handle of the HTB. Flows that are known stay known. */
export function ensureClassifier(netlink: RtNetlink, ifindex: number, qdisc: number, settings: FlowSettings): void {
  const filter = findClassifier(netlink, ifindex, qdisc);
  if (filter !== undefined && changeSettings(filter, settings)) return;
  const spec = parseCollection(readFileSync(shaperObjectPath()), 'shaper.bpf.o');
  using collection = loadCollection(spec);
  collection.maps.get('flow_settings')?.update(theOnlyKey, flowSettings.encode(settings));
  netlink.replaceFilter({
    ...{ ifindex, parent: qdisc, priority, handle },
    options: { kind: 'bpf', programFd: collection.program(programName).fd, name: programName, classify: true },
  });
}

export function findClassifier(netlink: RtNetlink, ifindex: number, qdisc: number): Filter | undefined {
  return netlink
    .filters(ifindex, qdisc)
    .find((filter) => filter.priority === priority && filter.handle === handle && filter.programId !== undefined);
}

/** False: it is not this version's program. */
function changeSettings(filter: Filter, settings: FlowSettings): boolean {
  using program = filter.programId === undefined ? undefined : BpfProgram.openById(filter.programId);
  for (const id of program?.mapIds() ?? []) {
    using map = BpfMap.openById(id);
    if (map?.spec.name !== 'flow_settings' || map.spec.valueSize !== flowSettings.size) continue;
    map.update(theOnlyKey, flowSettings.encode(settings));
    return true;
  }
  return false;
}
