/** Guards the sockets of pods (src/datapath/socket-guard.ts) whose cgroup is to be found. */
import type { Clock } from '../core/clock.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { SocketGuard } from '../datapath/socket-guard.ts';
import { fieldsOf } from './endpoint-inspection.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { PodCgroups } from './pod-cgroup.ts';

const unguarded = 'a container of this pod with CAP_NET_RAW can send past policy (PACKET_QDISC_BYPASS, AF_XDP)';

export class PodGuard {
  readonly #cgroups: PodCgroups;
  readonly #sockets = new SocketGuard();
  readonly #log: Logger;
  /** Pods that were told of, by uid. */
  readonly #told = new Set<string>();

  constructor(deps: { readonly clock: Clock; readonly log: Logger }) {
    this.#cgroups = new PodCgroups(deps.clock);
    this.#log = deps.log;
  }

  /** Idempotent, and never throws: a node without cgroup version 2 has pods too. `isNew`: its cgroup was just made. */
  ensure(record: EndpointRecord, options: { readonly isNew?: boolean } = {}): void {
    try {
      const dir = this.#cgroups.find(record.pod.uid, { thorough: options.isNew === true });
      if (dir === undefined) return this.#tell(record, 'its cgroup (version 2) is not to be found');
      this.#sockets.put(dir);
      this.#told.delete(record.pod.uid);
    } catch (error) {
      this.#tell(record, formatErrorChain(error));
    }
  }

  forget(uid: string): void {
    this.#told.delete(uid);
  }

  #tell(record: EndpointRecord, error: string): void {
    if (this.#told.has(record.pod.uid)) return;
    this.#told.add(record.pod.uid);
    this.#log.warn({ ...fieldsOf(record), error }, unguarded);
  }
}
