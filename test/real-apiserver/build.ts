/**
 * Builds a real kube-apiserver from the Go module proxy, once, outside the tree. Its version and modules are below;
 * the binary is what the contract tests compare the embedded API server with.
 *
 *   node --import tsx test/real-apiserver/build.ts [--optional]      builds, if it is not there; SLUICE_BUILD_APISERVER=0: not
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A patch release for which the proxy has every staging module. */
export const kubernetesVersion = '1.32.13';

/** k8s.io/kubernetes lives in one repository with these modules and pins them by directory: here, by version. */
const stagingModules = [
  'api',
  'apiextensions-apiserver',
  'apimachinery',
  'apiserver',
  'cli-runtime',
  'client-go',
  'cloud-provider',
  'cluster-bootstrap',
  'code-generator',
  'component-base',
  'component-helpers',
  'controller-manager',
  'cri-api',
  'cri-client',
  'csi-translation-lib',
  'dynamic-resource-allocation',
  'endpointslice',
  'externaljwt',
  'kms',
  'kube-aggregator',
  'kube-controller-manager',
  'kube-proxy',
  'kube-scheduler',
  'kubectl',
  'kubelet',
  'metrics',
  'mount-utils',
  'pod-security-admission',
  'sample-apiserver',
];

export function cacheDir(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'sluice', 'kube-apiserver');
}

export function binaryPath(): string {
  return join(cacheDir(), `kube-apiserver-${kubernetesVersion}`);
}

/** The reason why it cannot be built, or undefined when the binary is there. Takes about five minutes on two cores. */
export function buildApiServer(): string | undefined {
  if (existsSync(binaryPath())) return undefined;
  if (spawnSync('go', ['version']).status !== 0) return 'Go is not installed';
  const dir = cacheDir();
  mkdirSync(dir, { recursive: true });
  const replaced = stagingModules.map((name) => `\tk8s.io/${name} => k8s.io/${name} v0.${kubernetesVersion.slice(2)}`);
  writeFileSync(
    join(dir, 'go.mod'),
    `module sluice.test/kube-apiserver\n\ngo 1.23.0\n\nrequire k8s.io/kubernetes v${kubernetesVersion}\n\nreplace (\n${replaced.join('\n')}\n)\n`,
  );
  // Never compiled; it makes the program one of the module's imports.
  writeFileSync(
    join(dir, 'main.go'),
    '//go:build never\n\npackage main\n\nimport _ "k8s.io/kubernetes/cmd/kube-apiserver"\n',
  );
  const temporary = `${binaryPath()}.${process.pid}`;
  const version = 'k8s.io/component-base/version';
  const [major, minor] = kubernetesVersion.split('.');
  const flags = `-s -w -X ${version}.gitVersion=v${kubernetesVersion} -X ${version}.gitMajor=${major ?? ''} -X ${version}.gitMinor=${minor ?? ''}`;
  const build = spawnSync(
    'nice',
    [
      '-n',
      '10',
      'go',
      'build',
      '-p',
      '2',
      '-trimpath',
      '-ldflags',
      flags,
      '-o',
      temporary,
      'k8s.io/kubernetes/cmd/kube-apiserver',
    ],
    {
      cwd: dir,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, GOFLAGS: '-mod=mod', CGO_ENABLED: '0' },
    },
  );
  if (build.status !== 0)
    return `go build of kube-apiserver ${kubernetesVersion} ended with status ${build.status ?? 'none'}`;
  renameSync(temporary, binaryPath());
  return undefined;
}

/** With --optional, `make test`'s way, a machine that cannot build it is no failure: the tests that need it say why they skip. */
if (process.argv[1] === import.meta.filename && process.env.SLUICE_BUILD_APISERVER !== '0') {
  const optional = process.argv.includes('--optional');
  if (!existsSync(binaryPath()))
    console.log(`building kube-apiserver ${kubernetesVersion} for the contract tests: minutes, once`);
  const reason = buildApiServer();
  if (reason !== undefined || !optional) console.log(reason ?? binaryPath());
  process.exitCode = reason === undefined || optional ? 0 : 1;
}
