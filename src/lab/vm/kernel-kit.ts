/**
 * A kernel ready to boot: fetched from Debian's archive with apt, unpacked (never installed) into a cache and kept.
 * Layout of the cache: kernels/PACKAGE/{release, vmlinux, initramfs.cpio, root/lib/modules/RELEASE}.
 */

import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import type { Clock } from '../../core/clock.ts';
import { baseInitramfs } from './initramfs.ts';
import { fetchKernel, kernelFailure } from './kernel-archive.ts';
import { isKernelPackageName, isKernelSeries, preferredSeries, rankKernelPackages } from './kernel-package.ts';
import { withLock } from './lock.ts';
import { moduleLoadOrder } from './modules-dep.ts';
import { runTool } from './tool.ts';
import { findVmPrograms, type VmPrograms } from './requirements.ts';
import { extractVmlinux } from './vmlinux.ts';

export interface KernelKit {
  readonly packageName: string;
  /** As uname -r prints it. */
  readonly release: string;
  /** ELF vmlinux, or the bzImage where that could not be unpacked. */
  readonly kernelPath: string;
  readonly initramfsPath: string;
  /** The directory that the guest mounts at /lib/modules/RELEASE. */
  readonly modulesPath: string;
  readonly programs: VmPrograms;
}

export interface KernelKitOptions {
  /** For example ~/.cache/sluice/vm. */
  readonly cacheDir: string;
  /**
   * A Debian package, or a series such as "6.1": the newest of it in the cache, else the newest that Debian has.
   * Without it the one used last, or the newest 6.12, or the newest of any version.
   */
  readonly kernel?: string | undefined;
  readonly clock: Clock;
  readonly onProgress?: (line: string) => void;
}

/** Fetching some 100 MB over a slow line, while another process waits for it. */
const lockTimeoutMs = 15 * 60_000;

/** What the initramfs needs to reach the host's files; everything else the guest loads from /lib/modules. */
const initramfsModules = ['virtio_pci', 'virtio_console', 'virtio_rng', 'virtio_net', '9pnet_virtio', '9p', 'overlay'];

export async function prepareKernelKit(options: KernelKitOptions): Promise<KernelKit> {
  const programs = findVmPrograms();
  const { kernel } = options;
  if (kernel !== undefined && !isKernelPackageName(kernel) && !isKernelSeries(kernel)) {
    throw kernelFailure(
      kernel,
      'neither a kernel package nor a series',
      'for example linux-image-6.1.0-56-amd64, or 6.1',
    );
  }
  const cached = readyKit(options, programs);
  if (cached !== undefined) return cached;
  return withLock(join(options.cacheDir, 'lock'), { clock: options.clock, timeoutMs: lockTimeoutMs }, async () => {
    return readyKit(options, programs) ?? makeKit(options, programs);
  });
}

function readyKit(options: KernelKitOptions, programs: VmPrograms): KernelKit | undefined {
  const name = cachedName(options);
  return name === undefined ? undefined : readKit(options.cacheDir, name, programs);
}

function cachedName({ kernel, cacheDir }: KernelKitOptions): string | undefined {
  if (kernel !== undefined && !isKernelSeries(kernel)) return kernel;
  const kernels = join(cacheDir, 'kernels');
  const ready = existsSync(kernels) ? rankKernelPackages(readdirSync(kernels), kernel ?? preferredSeries) : [];
  return (kernel === undefined ? readDefaultName(cacheDir) : undefined) ?? ready[0];
}

function readDefaultName(cacheDir: string): string | undefined {
  const path = join(cacheDir, 'default-kernel');
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
}

function readKit(cacheDir: string, packageName: string, programs: VmPrograms): KernelKit | undefined {
  const directory = join(cacheDir, 'kernels', packageName);
  if (!existsSync(directory)) return undefined;
  const release = readFileSync(join(directory, 'release'), 'utf8').trim();
  return {
    packageName,
    release,
    kernelPath: join(directory, 'vmlinux'),
    initramfsPath: join(directory, 'initramfs.cpio'),
    modulesPath: join(directory, 'root/lib/modules', release),
    programs,
  };
}

/** Called under the lock. Works in a directory beside the final one and renames it: a killed run leaves no half kit. */
async function makeKit(options: KernelKitOptions, programs: VmPrograms): Promise<KernelKit> {
  const scratch = join(options.cacheDir, 'unfinished');
  rmSync(scratch, { recursive: true, force: true });
  mkdirSync(join(scratch, 'root'), { recursive: true });
  const { kernel, cacheDir, clock, onProgress = () => undefined } = options;
  const packageName = await fetchKernel({ kernel, cacheDir, programs, clock, onProgress }, scratch);
  const release = unpackedRelease(join(scratch, 'root'), packageName);
  buildKit(scratch, release, programs);
  mkdirSync(join(options.cacheDir, 'kernels'), { recursive: true });
  const directory = join(options.cacheDir, 'kernels', packageName);
  // It may be there, asked for by another name.
  if (existsSync(directory)) rmSync(scratch, { recursive: true, force: true });
  else renameSync(scratch, directory);
  if (kernel === undefined) writeFileSync(join(options.cacheDir, 'default-kernel'), `${packageName}\n`);
  const kit = readKit(options.cacheDir, packageName, programs);
  if (kit === undefined) throw kernelFailure(packageName, `vanished from ${options.cacheDir}`);
  return kit;
}

/** From trixie on the modules are packed under /usr/lib. */
function unpackedRelease(root: string, packageName: string): string {
  if (!existsSync(join(root, 'lib')) && existsSync(join(root, 'usr/lib/modules')))
    symlinkSync('usr/lib', join(root, 'lib'));
  const modules = join(root, 'lib/modules');
  const release = existsSync(modules) ? readdirSync(modules)[0] : undefined;
  if (release === undefined)
    throw kernelFailure(packageName, 'holds no kernel modules', 'name a linux-image package with a version');
  return release;
}

function buildKit(directory: string, release: string, programs: VmPrograms): void {
  const root = join(directory, 'root');
  runTool(programs.depmod, ['-b', root, release]);
  const bzImage = readFileSync(imagePath(root, release));
  writeFileSync(join(directory, 'vmlinux'), extractVmlinux(bzImage, programs) ?? bzImage);
  const modulesDir = join(root, 'lib/modules', release);
  const order = moduleLoadOrder(readFileSync(join(modulesDir, 'modules.dep'), 'utf8'), initramfsModules);
  const modules = order.map((path) => ({
    name: basename(path).replace(/\.ko.*$/, '.ko'),
    content: readModule(join(modulesDir, path), programs),
  }));
  writeFileSync(join(directory, 'initramfs.cpio'), baseInitramfs(readFileSync(programs.busybox), modules));
  writeFileSync(join(directory, 'release'), `${release}\n`);
  rmSync(join(root, 'boot'), { recursive: true, force: true });
}

/** In forky beside the modules. */
function imagePath(root: string, release: string): string {
  const inBoot = join(root, 'boot', `vmlinuz-${release}`);
  return existsSync(inBoot) ? inBoot : join(root, 'lib/modules', release, 'vmlinuz');
}

function readModule(path: string, programs: VmPrograms): Buffer {
  if (path.endsWith('.ko')) return readFileSync(path);
  const [command, args] = path.endsWith('.xz') ? [programs.xz, ['-dc', path]] : [programs.zstd, ['-qdc', path]];
  return Buffer.from(runTool(command, args, { encoding: 'latin1' }), 'latin1');
}
