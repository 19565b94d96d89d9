/**
 * Which Debian kernel the guest boots. Names differ by suite: "linux-image-6.12.117+deb12-amd64" (bookworm-security),
 * "linux-image-6.12.9+bpo-amd64" (backports), "linux-image-6.1.0-56-amd64" (bookworm). The -cloud kernels have no 9p,
 * and the -rt ones nothing we need.
 */

/** It has tcx, BTF, ipvlan and the qdiscs; any other is better than none. */
export const preferredSeries = '6.12';
const anySeries = /^linux-image-\d+\.\d+\.[\d.]+(\+[^-]+)?(-\d+)?-amd64(-unsigned)?$/;

/** The Debian suite whose kernel is of a series; what the host's own apt knows is taken before. */
const suites: Readonly<Record<string, string>> = {
  '5.10': 'bullseye',
  '6.1': 'bookworm',
  '6.12': 'trixie',
  '7.2': 'forky',
};

/** "6.1": the kernel's version without the number of the stable release. */
export function isKernelSeries(kernel: string): boolean {
  return /^\d+\.\d+$/.test(kernel);
}

/** Of a series, or of a package's. Undefined where no suite is known. */
export function suiteOfSeries(kernel: string): string | undefined {
  return suites[isKernelSeries(kernel) ? kernel : seriesOf(kernel)];
}

/** Kernel package names from the best down; the signed build of a version before the unsigned one. With a series only those. */
export function rankKernelPackages(names: readonly string[], series?: string): string[] {
  const kernels = names.filter((name) => anySeries.test(name)).sort(newestFirst);
  const of = (wanted: string): string[] => kernels.filter((name) => seriesOf(name) === wanted);
  if (series !== undefined) return of(series);
  const preferred = of(preferredSeries);
  return [...preferred, ...kernels.filter((name) => !preferred.includes(name))];
}

/** A package name as given by a user: nothing that a shell, apt or a path could take for something else. */
export function isKernelPackageName(name: string): boolean {
  return /^linux-image-[a-z0-9][a-z0-9.+-]*$/.test(name);
}

function newestFirst(a: string, b: string): number {
  const [left, right] = [versionNumbers(a), versionNumbers(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (right[i] ?? 0) - (left[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return Number(a.endsWith('-unsigned')) - Number(b.endsWith('-unsigned'));
}

function seriesOf(name: string): string {
  return versionNumbers(name).slice(0, 2).join('.');
}

function versionNumbers(name: string): number[] {
  const version = name.slice('linux-image-'.length).replace(/-amd64.*$/, '');
  return version.match(/\d+/g)?.map(Number) ?? [];
}
