import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../core/clock.ts';
import { hasErrorCode } from '../../core/error.ts';
import { identifyProcess } from '../process.ts';
import { directoryMode, executableMode, writeCpio } from './cpio.ts';
import { isKernelSeries, rankKernelPackages, suiteOfSeries } from './kernel-package.ts';
import { withLock } from './lock.ts';
import { moduleLoadOrder } from './modules-dep.ts';
import { qemuArguments } from './qemu.ts';
import { findVmPrograms } from './requirements.ts';
import { shellCommand } from './shell.ts';

describe('kernel packages', () => {
  it('are ranked: 6.12 first, newest first, signed before unsigned; no cloud, rt or debug kernels', () => {
    const names = [
      'linux-image-6.1.0-56-amd64',
      'linux-image-6.1.0-9-amd64',
      'linux-image-6.12.9+bpo-amd64',
      'linux-image-6.12.117+deb12-amd64-unsigned',
      'linux-image-6.12.117+deb12-amd64',
      'linux-image-6.12.117+deb12-cloud-amd64',
      'linux-image-6.12.117+deb12-rt-amd64',
      'linux-image-6.12.117+deb12-amd64-dbg',
      'linux-image-6.12-amd64',
      'linux-image-amd64',
    ];
    assert.deepEqual(rankKernelPackages(names), [
      'linux-image-6.12.117+deb12-amd64',
      'linux-image-6.12.117+deb12-amd64-unsigned',
      'linux-image-6.12.9+bpo-amd64',
      'linux-image-6.1.0-56-amd64',
      'linux-image-6.1.0-9-amd64',
    ]);
  });

  it('are found by series, in the suite that has it', () => {
    const names = ['linux-image-6.1.0-9-amd64', 'linux-image-6.12.9+bpo-amd64', 'linux-image-6.1.0-56-amd64'];
    assert.deepEqual(rankKernelPackages(names, '6.1'), ['linux-image-6.1.0-56-amd64', 'linux-image-6.1.0-9-amd64']);
    assert.deepEqual(rankKernelPackages(names, '5.10'), []);
    assert.ok(isKernelSeries('6.12') && !isKernelSeries('6.12.9') && !isKernelSeries('linux-image-6.12'));
    assert.equal(suiteOfSeries('5.10'), 'bullseye');
    assert.equal(suiteOfSeries('linux-image-7.2.12+deb14-amd64'), 'forky');
    assert.equal(suiteOfSeries('4.19'), undefined);
  });

  it('need modules in the order of their dependencies, each once', () => {
    const dep = 'kernel/a.ko.xz: kernel/b-x.ko.xz kernel/c.ko.xz\nkernel/b-x.ko.xz: kernel/c.ko.xz\nkernel/c.ko.xz:\n';
    assert.deepEqual(moduleLoadOrder(dep, ['b_x', 'a', 'builtin']), [
      'kernel/c.ko.xz',
      'kernel/b-x.ko.xz',
      'kernel/a.ko.xz',
    ]);
  });
});

describe('cpio', () => {
  it('is what cpio(1) unpacks', () => {
    const content = Buffer.from('#!/bin/sh\n');
    const archive = writeCpio([
      { path: 'bin', mode: directoryMode },
      { path: 'bin/tool', mode: executableMode, content },
    ]);
    assert.equal(archive.length % 512, 0);
    const list = spawnSync('cpio', ['-itv', '--quiet'], { input: archive, encoding: 'utf8' });
    assert.equal(list.status, 0, list.stderr);
    assert.match(list.stdout, /drwxr-xr-x .* bin\n-rwxr-xr-x .* 10 .* bin\/tool\n/);
    const unpacked = spawnSync('cpio', ['-i', '--quiet', '--to-stdout', 'bin/tool'], { input: archive });
    assert.deepEqual(unpacked.stdout, content);
  });
});

describe('shell words', () => {
  it('come back from sh unchanged, whatever is in them', () => {
    const word = fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll('\0', ''));
    fc.assert(
      fc.property(fc.array(word, { minLength: 1, maxLength: 20 }), (words) => {
        const { stdout } = spawnSync('sh', ['-c', shellCommand(['printf', '%s\\0', ...words])], { encoding: 'utf8' });
        assert.deepEqual(stdout.split('\0').slice(0, -1), words);
      }),
      { numRuns: 30 },
    );
  });
});

describe('requirements', () => {
  it('names the Debian packages that are missing', () => {
    assert.throws(
      () => findVmPrograms(['/nonexistent']),
      (error) => hasErrorCode(error, 'vm_failed') && /qemu-system-x86, busybox-static, kmod/.test(String(error)),
    );
  });
});

describe('QEMU', () => {
  it('gets a network only to forward a port, and the host read-only', () => {
    const machine = {
      kernelPath: '/k',
      initramfsPath: '/i',
      memoryMb: 512,
      mounts: [{ path: '/a,b', mode: 'rw' as const }],
      serial: 'stdio',
      ports: [],
    };
    const args = qemuArguments(machine);
    assert.ok(args.includes('none') && !args.some((arg) => arg.startsWith('user,')));
    assert.ok(args.some((arg) => arg.startsWith('local,path=/,') && arg.endsWith('readonly=on')));
    assert.ok(args.some((arg) => arg.startsWith('local,path=/a,,b,') && !arg.includes('readonly')));
    const forwarded = qemuArguments({ ...machine, hostForward: 'tcp:127.0.0.1:1-10.0.2.15:6443' });
    assert.ok(
      forwarded.some((arg) => arg.includes('restrict=on') && arg.endsWith('hostfwd=tcp:127.0.0.1:1-10.0.2.15:6443')),
    );
  });
});

describe('the lock', () => {
  const options = { clock: systemClock, timeoutMs: 300 };

  it('keeps a second holder out, and is taken over from a dead one', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sluice-lock-'));
    const path = join(dir, 'lock');
    try {
      await withLock(path, options, async () => {
        await assert.rejects(
          withLock(path, options, async () => undefined),
          (error) => hasErrorCode(error, 'timeout'),
        );
      });
      writeFileSync(path, JSON.stringify({ ...identifyProcess(process.pid), startTicks: '1' }));
      assert.equal(await withLock(path, options, async () => 'taken over'), 'taken over');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
