/** The resources served now: the built-in ones and those of the CustomResourceDefinitions in the store. */
import { builtinResources } from './builtin.ts';
import { customResources } from './crd.ts';
import type { Resource } from './resource.ts';
import { crdBucket } from './crd-kind.ts';
import type { Store } from './store.ts';

export class Registry {
  private readonly builtin: readonly Resource[] = builtinResources();
  private readonly custom = new Map<string, readonly Resource[]>();
  private byPath = new Map<string, Resource>();
  /** Counts changes, so that documents made from the registry can be cached. */
  revision = 0;

  constructor(store: Store) {
    for (const crd of store.list(crdBucket)) this.custom.set(crd.metadata.name, customResources(crd));
    this.rebuild();
    store.subscribe((event) => {
      if (event.bucket !== crdBucket) return;
      if (event.type === 'DELETED') this.custom.delete(event.key);
      else this.custom.set(event.key, customResources(event.object));
      this.rebuild();
    });
  }

  find(group: string, version: string, plural: string): Resource | undefined {
    return this.byPath.get(`${group}/${version}/${plural}`);
  }

  all(): Resource[] {
    return [...this.byPath.values()];
  }

  /** One resource per bucket: what cleaning and garbage collection walk over. */
  stored(): Resource[] {
    const seen = new Map<string, Resource>();
    for (const resource of this.all()) {
      if (resource.verbs.includes('delete') && !seen.has(resource.bucket)) seen.set(resource.bucket, resource);
    }
    return [...seen.values()];
  }

  private rebuild(): void {
    const all = [...this.builtin, ...[...this.custom.values()].flat()];
    this.byPath = new Map(
      all.map((resource) => [`${resource.group}/${resource.version}/${resource.plural}`, resource]),
    );
    this.revision++;
  }
}
