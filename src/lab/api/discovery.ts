/** What clients ask before anything else: versions, groups and their resources. */
import type { JsonObject } from './json.ts';
import type { Registry } from './registry.ts';
import { apiVersionOf, type Resource } from './resource.ts';

/** kubectl picks its own version by this one. */
export const versionInfo = {
  major: '1',
  minor: '32',
  gitVersion: 'v1.32.13-sluice-lab',
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '2026-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'none',
  platform: 'linux/amd64',
} as const;

export function coreVersions(): JsonObject {
  return { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] };
}

export function groupList(registry: Registry): JsonObject {
  return {
    kind: 'APIGroupList',
    apiVersion: 'v1',
    groups: groupNames(registry).map((name) => groupEntry(registry, name)),
  };
}

export function group(registry: Registry, name: string): JsonObject | undefined {
  if (!groupNames(registry).includes(name)) return undefined;
  return { kind: 'APIGroup', apiVersion: 'v1', ...groupEntry(registry, name) };
}

export function resourceList(registry: Registry, group: string, version: string): JsonObject | undefined {
  const resources = registry.all().filter((item) => item.group === group && item.version === version);
  if (resources.length === 0) return undefined;
  const groupVersion = group === '' ? version : `${group}/${version}`;
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources: resources.flatMap(legacyEntries) };
}

/** apidiscovery.k8s.io/v2: everything in one answer, for /api (core) and /apis (the groups). */
export function aggregated(registry: Registry, core: boolean): JsonObject {
  const names = core ? [''] : groupNames(registry);
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    metadata: {},
    items: names.map((name) => ({
      metadata: { name, creationTimestamp: null },
      versions: versionsOf(registry, name).map((version) => ({
        version,
        freshness: 'Current',
        resources: registry
          .all()
          .filter((item) => item.group === name && item.version === version)
          .map(aggregatedEntry),
      })),
    })),
  };
}

export function groupNames(registry: Registry): string[] {
  return [...new Set(registry.all().map((item) => item.group))].filter((name) => name !== '');
}

/** The most mature and newest first (v2, v1, v1beta2 …), as CRD versions are ordered. */
function versionsOf(registry: Registry, group: string): string[] {
  const all = registry.all().filter((item) => item.group === group);
  return [...new Set(all.map((item) => item.version))].sort((a, b) => priority(b) - priority(a) || (a < b ? -1 : 1));
}

function priority(version: string): number {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version);
  if (match === null) return -1;
  const stage = match[2] === undefined ? 2 : match[2] === 'beta' ? 1 : 0;
  return stage * 1_000_000 + Number(match[1]) * 1000 + Number(match[3] ?? 0);
}

function groupEntry(registry: Registry, name: string): JsonObject {
  const versions = versionsOf(registry, name).map((version) => ({ groupVersion: `${name}/${version}`, version }));
  return { name, versions, preferredVersion: versions[0] ?? { groupVersion: '', version: '' } };
}

interface Subresource {
  readonly name: string;
  readonly kind: string;
  readonly group: string;
  readonly version: string;
  readonly verbs: readonly string[];
}

function subresourcesOf(resource: Resource): Subresource[] {
  const own = { kind: resource.kind, group: resource.group, version: resource.version };
  const found: Subresource[] = [];
  if (resource.hasStatus) found.push({ ...own, name: 'status', verbs: ['get', 'patch', 'update'] });
  if (resource.scale !== undefined) {
    found.push({
      name: 'scale',
      kind: 'Scale',
      group: 'autoscaling',
      version: 'v1',
      verbs: ['get', 'patch', 'update'],
    });
  }
  for (const [name, kind] of Object.entries(resource.connects)) {
    const group = name === 'eviction' ? 'policy' : resource.group;
    found.push({ name, kind, group, version: 'v1', verbs: connectVerbs[name] ?? ['create', 'get'] });
  }
  return found;
}

const connectVerbs: Readonly<Record<string, readonly string[]>> = {
  log: ['get'],
  eviction: ['create'],
  binding: ['create'],
  ephemeralcontainers: ['get', 'patch', 'update'],
};

function legacyEntries(resource: Resource): JsonObject[] {
  const { plural, singular, namespaced, kind, verbs, shortNames, categories } = resource;
  const main: JsonObject = {
    name: plural,
    singularName: singular,
    namespaced,
    kind,
    verbs: [...verbs],
    ...(shortNames.length > 0 ? { shortNames: [...shortNames] } : {}),
    ...(categories.length > 0 ? { categories: [...categories] } : {}),
  };
  const subs = subresourcesOf(resource).map((sub) => ({
    name: `${plural}/${sub.name}`,
    singularName: '',
    namespaced,
    ...(`${sub.group}/${sub.version}` === `${resource.group}/${resource.version}`
      ? {}
      : { group: sub.group, version: sub.version }),
    kind: sub.kind,
    verbs: [...sub.verbs],
  }));
  return [main, ...subs];
}

function aggregatedEntry(resource: Resource): JsonObject {
  const responseKind = (kind: string, group: string, version: string): JsonObject => ({ group, version, kind });
  const subs = subresourcesOf(resource);
  return {
    resource: resource.plural,
    responseKind: responseKind(resource.kind, resource.group, resource.version),
    scope: resource.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: resource.singular,
    verbs: [...resource.verbs],
    ...(resource.shortNames.length > 0 ? { shortNames: [...resource.shortNames] } : {}),
    ...(resource.categories.length > 0 ? { categories: [...resource.categories] } : {}),
    ...(subs.length > 0
      ? {
          subresources: subs.map((sub) => ({
            subresource: sub.name,
            responseKind: responseKind(sub.kind, sub.group, sub.version),
            verbs: [...sub.verbs],
          })),
        }
      : {}),
  };
}

export function groupVersions(registry: Registry): string[] {
  return [...new Set(registry.all().map(apiVersionOf))];
}
