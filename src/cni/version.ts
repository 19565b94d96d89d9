import { cniErrorCodes, cniVersions, type CniCommand, type CniVersion } from '../api/cni.ts';
import { CniError } from './error.ts';

/** The specification's rule for a configuration that names none. */
const implicitVersion = '0.1.0';

/** The oldest configuration version with the command: CHECK came with 0.4.0, GC and STATUS with 1.1.0. */
const introducedIn: Record<CniCommand, CniVersion> = {
  ADD: '0.3.0',
  DEL: '0.3.0',
  CHECK: '0.4.0',
  STATUS: '1.1.0',
  GC: '1.1.0',
};

export function isCniVersion(text: unknown): text is CniVersion {
  return (cniVersions as readonly unknown[]).includes(text);
}

/** Checks the configuration's version against what we speak; throws CniError 1 with the list of supported versions. */
export function negotiateVersion(configured: unknown): CniVersion {
  const version = configured === undefined || configured === '' ? implicitVersion : configured;
  if (isCniVersion(version)) return version;
  const shown = typeof version === 'string' ? version : JSON.stringify(version);
  throw new CniError(
    cniErrorCodes.incompatibleVersion,
    'incompatible CNI versions',
    `cniVersion is ${JSON.stringify(shown)}, plugin supports ${JSON.stringify(cniVersions)}; set cniVersion in the network configuration to one of these`,
  );
}

/** Throws CniError 1 if the command did not exist in that version. */
export function requireCommand(command: CniCommand, version: CniVersion): void {
  const since = introducedIn[command];
  if (versionAtLeast(version, since)) return;
  throw new CniError(
    cniErrorCodes.incompatibleVersion,
    `config version does not allow ${command}`,
    `${command} exists since CNI ${since}, the configuration says cniVersion ${version}`,
  );
}

export function versionAtLeast(version: CniVersion, since: CniVersion): boolean {
  return cniVersions.indexOf(version) >= cniVersions.indexOf(since);
}

/** The specification's VERSION answer: cniVersion echoes the input's, "as given". */
export function versionAnswer(requested: unknown): { cniVersion: string; supportedVersions: readonly CniVersion[] } {
  const cniVersion = typeof requested === 'string' && requested !== '' ? requested : '1.1.0';
  return { cniVersion, supportedVersions: cniVersions };
}
