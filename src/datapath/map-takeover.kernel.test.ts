/** Maps on bpffs that do not fit: what is replaced, what is kept, and a process that ends in between. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { BpfMap } from '../kernel/index.ts';
import { ABI_VERSION } from './abi.ts';
import { Datapath, type DatapathOptions } from './datapath.ts';
import { TestBpffs, TestStack, whyNoKernelTests } from './test-bed.ts';

type Ids = Readonly<Record<string, number>>;

describe('taking over maps', { skip: whyNoKernelTests() ?? false }, () => {
  let stack: TestStack;
  let dir: string;

  beforeEach(() => {
    stack = new TestStack();
    dir = join(stack.use(new TestBpffs()).path, 'sluice');
  });
  afterEach(() => stack[Symbol.dispose]());

  /** The kernel's ids of the maps that a process of this kind goes on with, and why it made new ones. */
  function after(options: Partial<DatapathOptions> = {}): { readonly ids: Ids; readonly misfits: readonly string[] } {
    let misfits: readonly string[] = [];
    const log = { info: (fields: { misfits?: string[] }) => (misfits = fields.misfits ?? misfits) } as never;
    using datapath = Datapath.open({ bpffsDir: dir, log, ...options });
    assert.deepEqual(datapath.endpoints(), []);
    const names = readdirSync(dir).filter((name) => !statSync(join(dir, name)).isDirectory());
    return { ids: Object.fromEntries(names.map((name) => [name, idOf(name)])), misfits };
  }

  function idOf(name: string): number {
    using map = BpfMap.openPinned(join(dir, name));
    return map?.id ?? 0;
  }

  function pinStray(path: string): BpfMap {
    const map = stack.use(
      BpfMap.create({ name: 'stray', type: 1, keySize: 4, valueSize: 4, maxEntries: 16, flags: 0 }),
    );
    map.pin(path);
    return map;
  }

  const same = (a: Ids, b: Ids): string[] => Object.keys(a).filter((name) => a[name] === b[name]);

  it('replaces maps of another layout, version or size, and keeps what connections need', () => {
    pinStray(join(dir, 'endpoints'));
    assert.throws(() => Datapath.open({ bpffsDir: dir, mayReplaceMaps: false }), /valueSize: 4 where 8 is wanted/);
    const limits = { conntrack: 1024 };
    const first = after({ limits });
    assert.match(first.misfits.join(), /^there is no config,endpoints: /);
    assert.deepEqual(after({ limits }), { ids: first.ids, misfits: [] }, 'what fits is adopted');
    assert.deepEqual(after(), { ids: first.ids, misfits: [] }, 'a size that nobody asks for stays');

    const ofConnections = ['conntrack', 'correspondents', 'fragments'];
    const later = after({ abiVersion: ABI_VERSION + 1 });
    assert.deepEqual(later.misfits, [
      `version ${ABI_VERSION} of the layout, where this program has ${ABI_VERSION + 1}`,
    ]);
    assert.deepEqual(same(first.ids, later.ids).sort(), ofConnections);
    const back = after();
    assert.deepEqual(same(later.ids, back.ids), [], 'what a later version knows of connections means nothing here');
    const smaller = after({ limits: { policy: 4096 } });
    assert.deepEqual(smaller.misfits, ['policy: maxEntries: 1048576 where 4096 is wanted']);
    assert.deepEqual(same(back.ids, smaller.ids).sort(), ofConnections);
    assert.deepEqual(after().ids, smaller.ids);
  });

  it('a process that ended in between: a whole set of new maps is put in place, another is removed', () => {
    const { ids } = after();
    const next = join(dir, 'next');
    pinStray(join(next, 'policy'));
    assert.deepEqual(after(), { ids, misfits: [] });
    assert.ok(!existsSync(next));

    using policy = BpfMap.openPinned(join(dir, 'policy'));
    assert.ok(policy);
    using whole = BpfMap.create(policy.spec);
    whole.pin(join(next, 'policy'));
    renameSync(join(dir, 'config'), join(next, 'config'));
    assert.deepEqual(after(), { ids: { ...ids, policy: whole.id }, misfits: [] });
    assert.ok(!existsSync(next));
  });
});
