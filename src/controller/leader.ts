import type { KubeObject } from '../api/kubernetes.ts';
import { leases } from '../api/resources.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';

/**
 * One controller at a time, by a Lease (coordination.k8s.io/v1), the way client-go elects leaders: who holds it renews
 * it, and others take it when it was not renewed for its duration, measured from when they saw the last renewal, so
 * that no two clocks are compared.
 */

/** Its name, in the controllers' namespace. */
export const leaseName = 'sluice-controller';

const durationMs = 15_000;
const renewMs = 5_000;
const retryMs = 2_000;

export interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string | null;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

export interface LeaderOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  /** Unique to this process. */
  readonly identity: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class LeaderElection {
  readonly #options: LeaderOptions;
  /** The last renewal seen and when it was seen. */
  #seen: { readonly renewal: string; readonly atMs: number } | undefined;

  constructor(options: LeaderOptions) {
    this.#options = options;
  }

  /** Resolves when this process leads; rejects when the signal is aborted. */
  async acquire(signal: AbortSignal): Promise<void> {
    while (!(await this.#try(signal))) await this.#options.clock.sleep(retryMs, signal);
    this.#options.log.info({ identity: this.#options.identity }, 'leading');
  }

  /** Renews until the signal is aborted; resolves early when the lease is lost, and the process must stop working. */
  async hold(signal: AbortSignal): Promise<'lost' | 'stopped'> {
    let renewedMs = this.#options.clock.monotonicMs();
    while (!signal.aborted) {
      await this.#options.clock.sleep(renewMs, signal).catch(() => undefined);
      if (signal.aborted) break;
      if (await this.#try(signal)) renewedMs = this.#options.clock.monotonicMs();
      else if (this.#options.clock.monotonicMs() - renewedMs > durationMs - renewMs) return 'lost';
    }
    return 'stopped';
  }

  /** Gives the lease up, so that the next controller need not wait for it to run out. */
  async release(): Promise<void> {
    try {
      const lease = await this.#read();
      if (lease?.spec?.holderIdentity !== this.#options.identity) return;
      await this.#options.client.replace<Lease>(leases, { ...lease, spec: { ...lease.spec, holderIdentity: '' } });
    } catch (error) {
      this.#options.log.debug({ error: formatErrorChain(error) }, 'lease not released, it runs out by itself');
    }
  }

  async #try(signal: AbortSignal): Promise<boolean> {
    try {
      const lease = await this.#read();
      if (lease === undefined) await this.#options.client.create<Lease>(leases, this.#claim(undefined));
      else if (this.#isTakeable(lease)) await this.#options.client.replace<Lease>(leases, this.#claim(lease));
      else return false;
      return true;
    } catch (error) {
      if (!signal.aborted && !hasErrorCode(error, 'kube_conflict')) {
        this.#options.log.warn({ error: formatErrorChain(error) }, 'lease not taken, trying again');
      }
      return false;
    }
  }

  #read(): Promise<Lease | undefined> {
    const { client, namespace } = this.#options;
    return unlessNotFound(client.get<Lease>(leases, { namespace, name: leaseName }));
  }

  #isTakeable(lease: Lease): boolean {
    const holder = lease.spec?.holderIdentity;
    if (!holder || holder === this.#options.identity) return true;
    const renewal = renewalOf(lease);
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#seen?.renewal !== renewal) this.#seen = { renewal, atMs: nowMs };
    return nowMs - this.#seen.atMs > durationMs;
  }

  #claim(lease: Lease | undefined): Lease {
    const { namespace, identity, clock } = this.#options;
    // MicroTime: six digits of a second.
    const now = new Date(clock.nowMs()).toISOString().replace('Z', '000Z');
    const isOurs = lease?.spec?.holderIdentity === identity;
    return {
      ...lease,
      metadata: lease?.metadata ?? { namespace, name: leaseName },
      spec: {
        ...lease?.spec,
        holderIdentity: identity,
        leaseDurationSeconds: durationMs / 1000,
        renewTime: now,
        acquireTime: isOurs ? (lease.spec?.acquireTime ?? now) : now,
        leaseTransitions: (lease?.spec?.leaseTransitions ?? 0) + (isOurs || lease === undefined ? 0 : 1),
      },
    };
  }
}

/** Whether a controller lives: undefined when the lease was not renewed or taken for as long as one may take for it. */
export async function livingLeader(client: KubeClient, lease: Lease, clock: Clock): Promise<string | undefined> {
  const ref = { namespace: lease.metadata?.namespace, name: leaseName };
  const runsOutMs = lease.spec?.holderIdentity ? durationMs : 0;
  const endMs = clock.monotonicMs() + runsOutMs + 2 * retryMs;
  while (clock.monotonicMs() < endMs) {
    await clock.sleep(500);
    const now = await unlessNotFound(client.get<Lease>(leases, ref));
    if (now?.spec?.holderIdentity && renewalOf(now) !== renewalOf(lease)) return now.spec.holderIdentity;
  }
  return undefined;
}

/** Another text with each renewal. */
function renewalOf({ spec, metadata }: Lease): string {
  return `${spec?.holderIdentity ?? ''} ${spec?.renewTime ?? ''} ${metadata?.resourceVersion ?? ''}`;
}
