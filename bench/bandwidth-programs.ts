/** Limits made of a BPF program alone, to put beside ours (bpf/bench.bpf.c). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BpfLink, loadCollection, parseCollection, RtNetlink, withNetns } from '../src/kernel/index.ts';
import { packageRoot } from '../src/kernel/package-root.ts';

/** The link is held by this process: it ends with the interface, or with us. */
export function attachProgram(target: {
  readonly netns: string;
  readonly device: string;
  readonly hook: 'ingress' | 'egress';
  readonly program: 'edt' | 'police';
  readonly rateBps: number;
}): BpfLink {
  const rateBytes = new Uint8Array(8);
  new DataView(rateBytes.buffer).setBigUint64(0, BigInt(Math.ceil(target.rateBps / 8)), true);
  const object = readFileSync(join(packageRoot(), 'bpf', 'build', 'bench.bpf.o'));
  const { programs, ...spec } = parseCollection(object, 'bench.bpf.o');
  const wanted = new Map([...programs].filter(([name]) => name === target.program));
  using collection = loadCollection({ ...spec, programs: wanted }, { constants: { rate_bytes: rateBytes } });
  using netlink = RtNetlink.open(target.netns);
  const { ifindex } = netlink.mustLink(target.device);
  return withNetns(target.netns, () =>
    BpfLink.attachTcx({ program: collection.program(target.program), ifindex, hook: target.hook }),
  );
}
