import type { EndpointInterface, SpiderEndpoint } from '../api/spiderendpoint.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import { withInterface, withoutInterface, withoutPools, type EndpointOwner } from '../ipam/endpoint-record.ts';
import { staticKindOf } from '../ipam/pod-owner.ts';
import type { EndpointSource } from './ipam-deps.ts';

/** Writes the pods' SpiderEndpoints. What was written last is remembered while the pod has an interface here. */

const attempts = 10;

export class EndpointBook {
  readonly #source: EndpointSource;
  /** By pod UID. */
  readonly #written = new Map<string, SpiderEndpoint>();

  constructor(source: EndpointSource) {
    this.#source = source;
  }

  written(podUid: string): SpiderEndpoint | undefined {
    return this.#written.get(podUid);
  }

  read(namespace: string, name: string, signal?: AbortSignal): Promise<SpiderEndpoint | undefined> {
    return this.#source.read(namespace, name, signal);
  }

  /** Creates or changes it, so that it has this entry. An endpoint that an earlier pod of the name left is replaced. */
  async record(of: EndpointOwner, entry: EndpointInterface, known: SpiderEndpoint | undefined): Promise<void> {
    let before = known ?? this.#written.get(of.podUid);
    for (let attempt = 1; ; attempt++) {
      try {
        if (before !== undefined && isForeign(before, of)) {
          await this.#source.remove(before);
          before = undefined;
        }
        const next = withInterface(before, of, entry);
        if (before !== undefined && hasEntry(before, of, entry)) return;
        const written = before === undefined ? await this.#source.create(next) : await this.#source.replace(next);
        if (written !== undefined) this.#written.set(of.podUid, written);
        return;
      } catch (error) {
        const isStale = hasErrorCode(error, 'kube_conflict') || hasErrorCode(error, 'kube_not_found');
        if (!isStale) throw error;
        if (attempt >= attempts) throw contended(of, error);
        before = await this.#source.read(of.namespace, of.name);
      }
    }
  }

  /** Takes out what the interface has from these pools; undefined when nothing is left of the endpoint, which is then removed. */
  async dropPools(
    endpoint: SpiderEndpoint,
    interfaceName: string,
    pools: ReadonlySet<string>,
  ): Promise<SpiderEndpoint | undefined> {
    const next = withoutPools(endpoint, interfaceName, pools);
    if (next.status?.current.ips.length !== 0) return this.#source.replace(next);
    await this.#source.remove(endpoint);
    return undefined;
  }

  /** Takes the interface out; the endpoint goes with the last one. Does nothing to the endpoint of another pod. */
  async forget(namespace: string, name: string, podUid: string, interfaceName: string): Promise<void> {
    let before = this.#written.get(podUid);
    for (let attempt = 1; ; attempt++) {
      before ??= await this.#source.read(namespace, name);
      this.#written.delete(podUid);
      if (before?.status?.current.uid !== podUid) return;
      const next = withoutInterface(before, interfaceName);
      try {
        if (next.status?.current.ips.length === 0) {
          await this.#source.remove(before);
          return;
        }
        if (next.status?.current.ips.length === before.status.current.ips.length) return;
        this.#written.set(podUid, await this.#source.replace(next));
        return;
      } catch (error) {
        if (hasErrorCode(error, 'kube_not_found')) return;
        if (!hasErrorCode(error, 'kube_conflict') || attempt >= attempts) throw error;
        before = undefined;
      }
    }
  }
}

/** Of an earlier pod that kept nothing for this one, or on its way out. */
function isForeign({ metadata, status }: SpiderEndpoint, of: EndpointOwner): boolean {
  if (metadata.deletionTimestamp) return true;
  return status?.current.uid !== of.podUid && staticKindOf(of.owner, of.staticKinds) === undefined;
}

function hasEntry({ status }: SpiderEndpoint, { podUid, node }: EndpointOwner, entry: EndpointInterface): boolean {
  if (status?.current.uid !== podUid || status.current.node !== node) return false;
  const own = status.current.ips.find((other) => other.interface === entry.interface);
  return own !== undefined && Object.entries(entry).every(([key, value]) => isEqual(own[key], value));
}

function isEqual(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function contended({ namespace, name }: EndpointOwner, cause: unknown): SluiceError {
  return new SluiceError({
    code: 'ipam_conflict',
    operation: 'write',
    object: `SpiderEndpoint ${namespace}/${name}`,
    what: 'it changed each time',
    remedy: 'the request is tried again by itself',
    cause,
  });
}
