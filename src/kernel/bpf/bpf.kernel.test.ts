/** Maps, programs, links and the object reader against the real kernel. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureBpffs, unmount } from '../mount.ts';
import { RtNetlink } from '../netlink/rtnetlink.ts';
import { createNamedNetns, removeNamedNetns, withNetns } from '../netns.ts';
import { packageRoot } from '../package-root.ts';
import { loadCollection, parseCollection } from './collection.ts';
import { haveTcx } from './features.ts';
import { BpfLink } from './link.ts';
import { BpfMap, mapDifferences, MapFlag, MapType, possibleCpus } from './map.ts';
import { unpin } from './object.ts';
import { BpfProgram, ProgramType, VerifierError } from './program.ts';

function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

function instructions(...words: readonly (readonly number[])[]): Uint8Array {
  return Uint8Array.from(words.flat());
}

const exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
const returnZero = instructions([0xb7, 0, 0, 0, 0, 0, 0, 0], exit);

describe('BPF', () => {
  const id = randomBytes(4).toString('hex');
  const bpffs = `/run/sluice-bpf-${id}`;
  const netns = `/run/netns/sluice-bpf-${id}`;

  before(() => {
    mkdirSync(bpffs);
    ensureBpffs(bpffs);
    createNamedNetns(netns);
  });

  after(() => {
    removeNamedNetns(netns);
    unmount(bpffs, { lazy: true });
    rmdirSync(bpffs);
  });

  it('a hash map keeps what it is told, in single and in batch calls', () => {
    using map = BpfMap.create({
      name: 'test',
      type: MapType.hash,
      keySize: 4,
      valueSize: 8,
      maxEntries: 2000,
      flags: 0,
    });
    const value = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    map.update(u32(7), value);
    assert.deepEqual(map.lookup(u32(7)), value);
    assert.equal(map.lookup(u32(8)), undefined);
    assert.equal(map.delete(u32(7)), true);
    assert.equal(map.delete(u32(7)), false);
    map.updateBatch(Array.from({ length: 1500 }, (_, index) => [u32(index), value] as const));
    assert.equal([...map.entries()].length, 1500);
    map.deleteBatch(Array.from({ length: 1600 }, (_, index) => u32(index)));
    assert.equal([...map.keys()].length, 0);
    assert.throws(() => map.update(u32(1), new Uint8Array(3)), /a value of 3 bytes where it has 8/);
  });

  it('loads a program while the process is profiled, whose signals interrupt the verifier', () => {
    const zero = [0xb7, 0, 0, 0, 0, 0, 0, 0];
    // Takes the verifier many times longer than the profiler's interval.
    const long = Uint8Array.from([...Array.from({ length: 200_000 }, () => zero).flat(), ...exit]);
    const session = new Session();
    session.connect();
    try {
      session.post('Profiler.enable');
      session.post('Profiler.setSamplingInterval', { interval: 500 });
      session.post('Profiler.start');
      const program = { name: 'long', type: ProgramType.schedCls, instructions: long, license: 'GPL' };
      using loaded = BpfProgram.load(program);
      assert.equal(loaded.info().name, 'long');
    } finally {
      session.disconnect();
    }
  });

  it('says which limit a full map has', () => {
    using map = BpfMap.create({ name: 'small', type: MapType.hash, keySize: 4, valueSize: 4, maxEntries: 1, flags: 0 });
    map.update(u32(1), u32(1));
    assert.throws(() => map.update(u32(2), u32(1)), /update map small/);
  });

  it('a trie answers with the longest prefix', () => {
    using map = BpfMap.create({
      name: 'trie',
      type: MapType.lpmTrie,
      keySize: 8,
      valueSize: 4,
      maxEntries: 10,
      flags: MapFlag.noPrealloc,
    });
    map.updateBatch([
      [Uint8Array.of(8, 0, 0, 0, 10, 0, 0, 0), u32(1)],
      [Uint8Array.of(16, 0, 0, 0, 10, 1, 0, 0), u32(2)],
    ]);
    assert.deepEqual(map.lookup(Uint8Array.of(32, 0, 0, 0, 10, 1, 2, 3)), u32(2));
    assert.deepEqual(map.lookup(Uint8Array.of(32, 0, 0, 0, 10, 9, 2, 3)), u32(1));
    assert.equal(map.lookup(Uint8Array.of(32, 0, 0, 0, 11, 0, 0, 0)), undefined);
  });

  it('a per-CPU map has a value for each CPU that may ever be there', () => {
    using map = BpfMap.create({
      name: 'percpu',
      type: MapType.percpuArray,
      keySize: 4,
      valueSize: 8,
      maxEntries: 1,
      flags: 0,
    });
    assert.equal(map.lookup(u32(0))?.length, 8 * possibleCpus());
  });

  it('a map of maps swaps a whole table at once', () => {
    const inner = { name: 'inner', type: MapType.hash, keySize: 4, valueSize: 4, maxEntries: 4, flags: 0 };
    using outer = BpfMap.create({
      name: 'outer',
      type: MapType.hashOfMaps,
      keySize: 4,
      valueSize: 4,
      maxEntries: 4,
      flags: 0,
      inner,
    });
    using table = BpfMap.create(inner);
    table.update(u32(1), u32(42));
    outer.update(u32(9), u32(table.fd));
    const innerId = new DataView((outer.lookup(u32(9)) ?? new Uint8Array(4)).buffer).getUint32(0, true);
    assert.equal(innerId, table.id);
    using again = BpfMap.openById(innerId);
    assert.deepEqual(again?.lookup(u32(1)), u32(42));
  });

  it('a pinned map lives on, and differences to a wanted one are all named', () => {
    const spec = { name: 'pinned', type: MapType.hash, keySize: 4, valueSize: 4, maxEntries: 4, flags: 0 };
    const path = join(bpffs, 'deep', 'pinned');
    {
      using map = BpfMap.create(spec);
      map.update(u32(1), u32(2));
      map.pin(path);
    }
    {
      using map = BpfMap.openPinned(path);
      assert.deepEqual(map?.lookup(u32(1)), u32(2));
      assert.deepEqual(map?.spec, spec);
      assert.equal(mapDifferences({ ...spec, keySize: 8, maxEntries: 5 }, spec).length, 2);
    }
    assert.equal(unpin(path), true);
    assert.equal(unpin(path), false);
    assert.equal(BpfMap.openPinned(path), undefined);
    rmdirSync(join(bpffs, 'deep'));
  });

  it('shows one line of the verifier and keeps the rest', () => {
    const uninitialised = instructions([0xbf, 0x10, 0, 0, 0, 0, 0, 0].with(1, 0x50), exit); // r0 = r5, never written
    assert.throws(
      () => BpfProgram.load({ name: 'bad', type: ProgramType.schedCls, instructions: uninitialised, license: 'GPL' }),
      (error: unknown) =>
        error instanceof VerifierError && /R5 !read_ok/.test(error.message) && error.log.split('\n').length > 2,
    );
  });

  it('runs a program on a packet', () => {
    using program = BpfProgram.load({
      name: 'zero',
      type: ProgramType.schedCls,
      instructions: returnZero,
      license: 'GPL',
    });
    const run = program.testRun(new Uint8Array(64), { repeat: 10 });
    assert.equal(run.returnValue, 0);
    assert.equal(run.packet.length, 64);
    assert.match(program.info().tag, /^[0-9a-f]{16}$/);
  });

  it(
    'a pinned tcx link drops packets in another netns, without its maker',
    { skip: haveTcx() ? false : 'this kernel has no tcx (Linux 6.6)' },
    () => {
      const drop = instructions([0xb7, 0, 0, 0, 2, 0, 0, 0], exit);
      const path = join(bpffs, 'link');
      using rt = RtNetlink.open(netns);
      const lo = rt.mustLink('lo');
      {
        using program = BpfProgram.load({
          name: 'drop',
          type: ProgramType.schedCls,
          instructions: drop,
          license: 'GPL',
        });
        using link = withNetns(netns, () => BpfLink.attachTcx({ program, ifindex: lo.ifindex, hook: 'egress' }));
        link.pin(path);
      }
      using link = BpfLink.openPinned(path);
      assert.deepEqual([link?.info().ifindex, link?.info().hook], [lo.ifindex, 'egress']);
      using next = BpfProgram.load({
        name: 'next',
        type: ProgramType.schedCls,
        instructions: returnZero,
        license: 'GPL',
      });
      link?.update(next);
      assert.equal(link?.info().programId, next.info().id);
      unpin(path);
    },
  );

  it('reads and loads the committed datapath object', () => {
    const file = join(packageRoot(), 'bpf', 'build', 'endpoint.bpf.o');
    const spec = parseCollection(readFileSync(file), 'endpoint.bpf.o');
    assert.deepEqual([...spec.programs.keys()].sort(), ['from_endpoint', 'to_endpoint']);
    assert.equal(spec.constantOffsets.get('endpoint_id')?.size, 4);
    using collection = loadCollection(spec, { constants: { endpoint_id: u32(7) } });
    // No endpoint 7 is known: whatever comes is dropped.
    const frame = new Uint8Array(64);
    frame.set([0x08, 0x00], 12);
    frame[14] = 0x45;
    assert.equal(collection.program('from_endpoint').testRun(frame).returnValue, 2);
  });

  it('refuses what is not a BPF object, by name', () => {
    assert.throws(
      () => parseCollection(new Uint8Array(10), 'junk.o'),
      /read BPF object junk\.o: it is not a little-endian ELF64/,
    );
  });
});
