/** Kinds that small kernels lack, against a kernel that has them (the lab's VM runs this with SLUICE_VM=1). */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, it, type TestContext } from 'node:test';
import { Errno, isErrno } from '../errno.ts';
import { createNamedNetns, removeNamedNetns } from '../netns.ts';
import { type QdiscOptions, tcHandle, tcMakeHandle } from './qdisc.ts';
import { RtNetlink } from './rtnetlink.ts';

/** In the VM everything is there: a skip would hide a failure. */
const mustHaveAll = process.env['SLUICE_VM'] === '1';

describe('kinds of a distribution kernel', () => {
  let path = '';
  let rt: RtNetlink;
  let parentIfindex = 0;

  beforeEach(() => {
    path = `/run/netns/sluice-di-${randomBytes(4).toString('hex')}`;
    createNamedNetns(path);
    rt = RtNetlink.open(path);
    rt.addLink({ kind: 'veth', name: 'v0', peer: { name: 'v1' } });
    parentIfindex = rt.mustLink('v0').ifindex;
  });

  afterEach(cleanUp);

  function cleanUp(): void {
    rt.close();
    removeNamedNetns(path);
  }

  function show(tool: 'ip' | 'tc', ...args: string[]): Record<string, unknown>[] {
    const command = [`--net=${path}`, tool, '-j', '-d', ...args];
    return JSON.parse(execFileSync('nsenter', command, { encoding: 'utf8' })) as Record<string, unknown>[];
  }

  /** False, with the test skipped, when the kernel does not know the kind. */
  function has(context: TestContext, kind: string, attempt: () => void): boolean {
    try {
      attempt();
      return true;
    } catch (error) {
      const isAbsent = isErrno(error, Errno.EOPNOTSUPP, Errno.ENOENT);
      if (!isAbsent || mustHaveAll) throw error;
      // Node 20 runs no afterEach for a test that skips itself.
      cleanUp();
      context.skip(`this kernel has no ${kind}`);
      return false;
    }
  }

  for (const mode of ['l2', 'l3', 'l3s'] as const) {
    it(`ipvlan ${mode}`, (context) => {
      const add = (): void => {
        rt.addLink({ kind: 'ipvlan', name: 'eth0', parentIfindex, mode });
      };
      if (!has(context, 'ipvlan', add)) return;
      const link = rt.mustLink('eth0');
      assert.deepEqual([link.kind, link.ipvlanMode, link.parentIfindex], ['ipvlan', mode, parentIfindex]);
      const shown = show('ip', 'link', 'show', 'eth0')[0]?.['linkinfo'];
      assert.match(JSON.stringify(shown), new RegExp(`"info_kind":"ipvlan".*"mode":"${mode}"`));
    });
  }

  it('dummy', (context) => {
    const add = (): void => {
      rt.addLink({ kind: 'dummy', name: 'd0' });
    };
    if (has(context, 'dummy', add)) assert.equal(rt.mustLink('d0').kind, 'dummy');
  });

  const qdiscs: readonly { options: QdiscOptions; shown: Record<string, unknown> }[] = [
    {
      options: { kind: 'fq_codel', limitPackets: 1000, targetUs: 5000, intervalUs: 100_000, memoryLimitBytes: 4 << 20 },
      shown: { limit: 1000, target: 4999, interval: 99_999, memory_limit: 4 << 20 },
    },
    { options: { kind: 'fq', limitPackets: 5000 }, shown: { limit: 5000 } },
    {
      options: { kind: 'cake', rateBytes: 12_500_000, rttUs: 10_000, splitGso: true },
      shown: { bandwidth: 12_500_000, rtt: 10_000, split_gso: true, raw: true },
    },
    { options: { kind: 'pfifo', limit: 77 }, shown: { limit: 77 } },
  ];
  for (const { options, shown } of qdiscs) {
    it(`qdisc ${options.kind}`, (context) => {
      const place = { ifindex: parentIfindex, parent: tcHandle.root, handle: tcMakeHandle(1, 0) };
      const add = (): void => {
        rt.replaceQdisc({ ...place, options });
      };
      if (!has(context, options.kind, add)) return;
      const found = show('tc', 'qdisc', 'show', 'dev', 'v0').find(({ kind }) => kind === options.kind);
      const told = found?.['options'] as Record<string, unknown>;
      assert.deepEqual(Object.fromEntries(Object.keys(shown).map((key) => [key, told[key]])), shown);
      rt.replaceQdisc({ ...place, options });
      assert.ok(rt.deleteQdisc(parentIfindex, tcHandle.root));
    });
  }

  it('matchall redirects to an ifb', (context) => {
    rt.addLink({ kind: 'ifb', name: 'ifb0' });
    const redirectToIfindex = rt.mustLink('ifb0').ifindex;
    rt.addQdisc({
      ifindex: parentIfindex,
      parent: tcHandle.ingress,
      handle: tcHandle.clsact,
      options: { kind: 'clsact' },
    });
    const add = (): void => {
      rt.addFilter({
        ifindex: parentIfindex,
        parent: tcHandle.clsactIngress,
        priority: 7,
        handle: 1,
        options: { kind: 'matchall', redirectToIfindex },
      });
    };
    if (!has(context, 'matchall', add)) return;
    const shown = JSON.stringify(show('tc', 'filter', 'show', 'dev', 'v0', 'ingress'));
    assert.match(shown, /"kind":"mirred","mirred_action":"redirect","direction":"egress","to_dev":"ifb0"/);
    const [filter] = rt.filters(parentIfindex, tcHandle.clsactIngress);
    assert.deepEqual([filter?.kind, filter?.priority], ['matchall', 7]);
    assert.ok(rt.deleteFilters(parentIfindex, tcHandle.clsactIngress, 7));
  });
});
