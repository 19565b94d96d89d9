import type { Pod } from '../api/kubernetes.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';

/**
 * Removes SpiderEndpoints that no pool has a record for (`enableCleanOutdatedEndpoint`). ADD writes the record first and the
 * endpoint after it, a release the other way round; so one without a record is left over, unless its pod still lives.
 */

export interface EndpointCleanerDeps {
  /** All of these from the API server. */
  readonly endpoints: {
    list(): Promise<readonly SpiderEndpoint[]>;
    /** The object of this UID only. */
    remove(endpoint: SpiderEndpoint): Promise<void>;
  };
  readonly listPools: () => Promise<readonly SpiderIPPool[]>;
  readonly readPod: (namespace: string, name: string) => Promise<Pod | undefined>;
  readonly log: Logger;
}

export class EndpointCleaner {
  readonly #deps: EndpointCleanerDeps;
  /** UIDs of endpoints without a record at the last look. */
  #suspects: ReadonlySet<string> = new Set();

  constructor(deps: EndpointCleanerDeps) {
    this.#deps = deps;
  }

  /** Call it with each scan: what is without a record twice goes. Answers namespace/name of what it removed. */
  async clean(): Promise<string[]> {
    const { endpoints, listPools, log } = this.#deps;
    // The endpoints first: a record of one that is made meanwhile is then in the pools.
    const all = await endpoints.list();
    const documents = (await listPools()).map(({ status }) => status?.allocatedIPs ?? '');
    const isRecorded = ({ metadata, status }: SpiderEndpoint): boolean =>
      [`${metadata.namespace ?? ''}/${metadata.name ?? ''}`, status?.current.uid]
        .flatMap((text) => (text ? JSON.stringify(text) : []))
        .some((mark) => documents.some((document) => document.includes(mark)));
    const without = all.filter((endpoint) => !isRecorded(endpoint));
    const before = this.#suspects;
    this.#suspects = new Set(without.map(({ metadata }) => metadata.uid ?? ''));
    const removed: string[] = [];
    for (const endpoint of without.filter(({ metadata }) => before.has(metadata.uid ?? ''))) {
      const name = `${endpoint.metadata.namespace ?? ''}/${endpoint.metadata.name ?? ''}`;
      try {
        if (await this.#lives(endpoint)) continue;
        await endpoints.remove(endpoint);
        removed.push(name);
        log.info({ endpoint: name }, 'SpiderEndpoint without a record removed');
      } catch (error) {
        log.warn({ endpoint: name, error: formatErrorChain(error) }, 'SpiderEndpoint not removed, trying again');
      }
    }
    return removed;
  }

  /** Whose records are lost, not whose endpoint is left over: `sluice ipam check` tells of it. */
  async #lives({ metadata, status }: SpiderEndpoint): Promise<boolean> {
    const pod = await this.#deps.readPod(metadata.namespace ?? '', metadata.name ?? '');
    return pod !== undefined && pod.metadata?.uid === status?.current.uid;
  }
}
