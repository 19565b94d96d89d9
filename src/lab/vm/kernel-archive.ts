/**
 * Kernel packages from Debian's archive: what the host's apt knows, else another suite of the same mirror, whose lists
 * are kept in the cache. The host's own apt configuration is read and never changed.
 */

import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../core/clock.ts';
import { formatErrorChain, SluiceError } from '../../core/error.ts';
import { isKernelSeries, rankKernelPackages, suiteOfSeries } from './kernel-package.ts';
import type { VmPrograms } from './requirements.ts';
import { runTool } from './tool.ts';

export interface KernelWanted {
  /** A package, a series ("6.1"), or undefined for the preferred one. */
  readonly kernel: string | undefined;
  /** Lists of other suites are kept below it. */
  readonly cacheDir: string;
  readonly programs: VmPrograms;
  readonly clock: Clock;
  readonly onProgress: (line: string) => void;
}

/** apt with the host's configuration (no options), or with lists of its own. */
interface Apt {
  readonly programs: VmPrograms;
  readonly options: readonly string[];
}

const maxCandidates = 4;
/** A mirror that is out of reach for a moment is asked again after each of these. */
const retryPausesMs = [5_000, 30_000];
/** Trusted for every suite of Debian; without the package the host's trusted keys are asked. */
const debianKeyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Unpacks the package into DIRECTORY/root and returns its name. Throws `vm_failed`. */
export async function fetchKernel(wanted: KernelWanted, directory: string): Promise<string> {
  const host: Apt = { programs: wanted.programs, options: ['-o', 'APT::Sandbox::User=root'] };
  const { kernel } = wanted;
  const isPackage = kernel !== undefined && !isKernelSeries(kernel);
  const known = isPackage ? [kernel] : rankKernelPackages(packageNames(host), kernel);
  const here = fetchable(known, host);
  if (here.length > 0) return fetchFirst(here, directory, host, wanted);
  const suite = kernel === undefined ? undefined : suiteOfSeries(kernel);
  if (suite === undefined) {
    throw kernelFailure(kernel ?? 'linux-image', 'apt has no such kernel package', 'apt-get update');
  }
  const other = await aptOfSuite(suite, wanted);
  const there = fetchable(isPackage ? [kernel] : rankKernelPackages(packageNames(other), kernel), other);
  if (there.length === 0) {
    throw kernelFailure(kernel ?? 'linux-image', `Debian ${suite} has no such kernel package`, 'name another kernel');
  }
  return fetchFirst(there, directory, other, wanted);
}

async function withRetries<T>({ clock, onProgress }: KernelWanted, attempt: () => T): Promise<T> {
  for (const pauseMs of retryPausesMs) {
    try {
      return attempt();
    } catch (error) {
      onProgress(`${formatErrorChain(error)}; once more in ${pauseMs / 1000} s`);
      await clock.sleep(pauseMs);
    }
  }
  return attempt();
}

function packageNames(apt: Apt): string[] {
  return runTool(apt.programs['apt-cache'], [...apt.options, 'pkgnames', 'linux-image-']).split('\n');
}

/** apt's list of names also holds packages that are only mentioned by others: take the first that can be fetched. */
function fetchFirst(candidates: readonly string[], directory: string, apt: Apt, wanted: KernelWanted): Promise<string> {
  return withRetries(wanted, () => {
    let last: unknown;
    for (const name of candidates.slice(0, maxCandidates)) {
      try {
        wanted.onProgress(`fetching ${name} (about 100 MB, once)`);
        fetchPackage(name, directory, apt);
        return name;
      } catch (error) {
        last = error;
        removePackages(directory);
      }
    }
    const name = candidates[0] ?? 'linux-image';
    throw kernelFailure(name, 'cannot be fetched with apt-get download', 'apt-get update', last);
  });
}

/** From forky on the kernel and its modules are packages of their own, on which linux-image-… depends. */
function fetchPackage(name: string, directory: string, apt: Apt): void {
  const description = runTool(apt.programs['apt-cache'], [...apt.options, 'show', '--no-all-versions', name]);
  const depends = /^Depends: (.*)$/m.exec(description)?.[1] ?? '';
  const parts = depends.match(/\blinux-(?:binary|modules)-[a-z0-9.+-]+/g) ?? [];
  runTool(apt.programs['apt-get'], [...apt.options, '-q', 'download', name, ...parts], { cwd: directory });
  for (const deb of packagesIn(directory)) runTool(apt.programs.dpkg, ['-x', deb, join(directory, 'root')]);
  removePackages(directory);
}

function packagesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith('.deb'))
    .map((file) => join(directory, file));
}

function removePackages(directory: string): void {
  for (const deb of packagesIn(directory)) rmSync(deb);
}

/** One call for all names: apt-cache takes a tenth of a second to read its lists. */
function fetchable(names: readonly string[], apt: Apt): string[] {
  if (names.length === 0) return [];
  const policies = runTool(apt.programs['apt-cache'], [...apt.options, 'policy', ...names]).split(/^(?=\S)/m);
  const real = policies
    .filter((text) => /Candidate: [^(\s]/.test(text))
    .map((text) => text.slice(0, text.indexOf(':')));
  return names.filter((name) => real.includes(name));
}

/** Fetches the suite's list (10 MB) into the cache. */
async function aptOfSuite(suite: string, wanted: KernelWanted): Promise<Apt> {
  const { cacheDir, programs, onProgress } = wanted;
  const mirror = debianMirror(programs);
  const root = join(cacheDir, 'apt', suite);
  for (const directory of ['lists/partial', 'cache/archives/partial', 'empty']) {
    mkdirSync(join(root, directory), { recursive: true });
  }
  const keyring = existsSync(debianKeyring) ? `[signed-by=${debianKeyring}] ` : '';
  writeFileSync(join(root, 'sources.list'), `deb ${keyring}${mirror} ${suite} main\n`);
  const settings = [
    `Dir::Etc::SourceList=${join(root, 'sources.list')}`,
    `Dir::Etc::SourceParts=${join(root, 'empty')}`,
    `Dir::State::Lists=${join(root, 'lists')}`,
    `Dir::Cache=${join(root, 'cache')}`,
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false',
    'Acquire::Languages=none',
    // Without it a list that cannot be fetched is a warning.
    'APT::Update::Error-Mode=any',
    'APT::Sandbox::User=root',
  ];
  const apt: Apt = { programs, options: settings.flatMap((setting) => ['-o', setting]) };
  onProgress(`fetching the package list of Debian ${suite}`);
  await withRetries(wanted, () => runTool(programs['apt-get'], [...apt.options, '-q', 'update']));
  return apt;
}

/** Where the host's own Debian packages come from, the security archive aside: it has the same name for each suite. */
function debianMirror(programs: VmPrograms): string {
  const format = '$(ORIGIN)\t$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)';
  const targets = runTool(programs['apt-get'], ['indextargets', '--format', format]).trim().split('\n');
  const mirror = targets
    .map((line) => line.split('\t'))
    .find(([origin, release, component]) => {
      return origin === 'Debian' && component === 'main' && release !== undefined && !release.includes('-');
    });
  if (mirror?.[3] === undefined) {
    throw kernelFailure('linux-image', 'apt on this host has no Debian mirror to take other suites from');
  }
  return mirror[3];
}

export function kernelFailure(object: string, what: string, remedy?: string, cause?: unknown): SluiceError {
  return new SluiceError({ code: 'vm_failed', operation: 'prepare the kernel', object, what, remedy, cause });
}
