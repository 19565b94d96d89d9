/** Mounts that this test makes below a directory of its own. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { BpfMap, MapType } from './bpf/map.ts';
import { isErrno, Errno } from './errno.ts';
import { bindMount, ensureBpffs, findMount, isOnBpffs, listMounts, parseMountInfo, unmount } from './mount.ts';

describe('mounts', () => {
  let dir = '';

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-mount-'));
  });

  afterEach(() => {
    for (const mount of listMounts().toReversed())
      if (mount.target.startsWith(`${dir}/`)) unmount(mount.target, { lazy: true });
    rmSync(dir, { recursive: true });
  });

  it('a bpffs is mounted once, and holds a pinned map', () => {
    const target = join(dir, 'bpf');
    assert.equal(ensureBpffs(target), true);
    assert.equal(ensureBpffs(target), false);
    assert.equal(listMounts().filter((mount) => mount.target === target).length, 1);
    assert.equal(isOnBpffs(join(target, 'a/b')), true);
    assert.equal(isOnBpffs(dir), false);
    assert.equal(isOnBpffs(`${target}-other`), false, 'a name that only begins alike');
    using map = BpfMap.create({ name: 'm', type: MapType.array, keySize: 4, valueSize: 4, maxEntries: 1, flags: 0 });
    map.pin(join(target, 'a/m'));
    assert.ok(existsSync(join(target, 'a/m')));
  });

  it('a bind mount shows the same files until it is unmounted', () => {
    const [source, target] = [join(dir, 'source'), join(dir, 'with space')];
    mkdirSync(source);
    mkdirSync(target);
    writeFileSync(join(source, 'file'), '');
    bindMount(source, target);
    assert.ok(existsSync(join(target, 'file')));
    assert.ok(findMount(target), 'found although mountinfo writes the space as \\040');
    unmount(target);
    assert.equal(existsSync(join(target, 'file')), false);
    assert.throws(
      () => {
        unmount(target);
      },
      (error: unknown) => isErrno(error, Errno.EINVAL) && error instanceof Error && error.message.includes(target),
    );
  });

  it('reads lines with and without optional fields', () => {
    const text =
      '36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n' +
      '37 35 0:4 net:[4026532281] /run/netns/x rw - nsfs nsfs rw\n';
    assert.deepEqual(
      parseMountInfo(text).map(({ root, target, fsType, source, options }) => ({
        root,
        target,
        fsType,
        source,
        options,
      })),
      [
        { root: '/mnt1', target: '/mnt 2', fsType: 'ext3', source: '/dev/root', options: ['rw', 'noatime'] },
        { root: 'net:[4026532281]', target: '/run/netns/x', fsType: 'nsfs', source: 'nsfs', options: ['rw'] },
      ],
    );
  });
});
