import type { AddressSpec } from '../ipam/pool-addresses.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import type { Clock } from '../core/clock.ts';

/**
 * Two pools that share addresses and are created at the same instant would each pass, since neither is stored while
 * the other is judged. So whatever is admitted leaves a claim in one object that all controllers share, written with
 * its version: of two reviews at once one fails to write, and judges again with the other's claim in view. A claim
 * counts like a stored object until that is listed, or until it runs out because the write failed.
 */

/** An API server that has not stored an admitted object by then has given up: its own limit for a request is shorter. */
export const claimMs = 10_000;

/** Other replicas' reviews can come in between; each of them ended, so somebody always gets on. */
const maxAttempts = 50;

export type ClaimKind = 'SpiderIPPool' | 'SpiderSubnet';

export interface Claim {
  readonly kind: ClaimKind;
  readonly name: string;
  readonly spec: AddressSpec;
  /** The stored resourceVersion when it was admitted; absent for a new object. Another one means: stored. */
  readonly base?: string | undefined;
  /** Wall clock: other controllers read it too. */
  readonly untilMs: number;
}

/** One object, read and replaced as a whole. */
export interface ClaimStore {
  read(): Promise<{ readonly claims: readonly Claim[]; readonly version: string | undefined }>;
  /** Rejects with kube_conflict when the version is not the newest. */
  write(claims: readonly Claim[], version: string | undefined): Promise<void>;
}

export interface ClaimedVerdict<T> {
  readonly verdict: T;
  /** What to claim; absent when the review refuses or is a dry run. */
  readonly claim?: Omit<Claim, 'untilMs'> | undefined;
  /** Whether the claim's object is as it was stored when the claim was made; the others are dropped. */
  readonly isPending: (claim: Claim) => boolean;
}

export class AdmissionClaims {
  readonly #store: ClaimStore;
  readonly #clock: Clock;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(store: ClaimStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /**
   * `judge` is given the claims that count, and must list objects only then: a claim that was dropped because its
   * object is stored is then in the list. Reviews of this process take turns, so that they conflict only with others'.
   */
  review<T>(judge: (claims: readonly Claim[]) => Promise<ClaimedVerdict<T>>): Promise<T> {
    const verdict = this.#turn.then(() => this.#review(judge));
    this.#turn = verdict.catch(() => undefined);
    return verdict;
  }

  async #review<T>(judge: (claims: readonly Claim[]) => Promise<ClaimedVerdict<T>>): Promise<T> {
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const { claims, version } = await this.#store.read();
      const nowMs = this.#clock.nowMs();
      const live = claims.filter((claim) => claim.untilMs > nowMs);
      const { verdict, claim, isPending } = await judge(live);
      if (claim === undefined) return verdict;
      try {
        await this.#store.write([...live.filter(isPending), { ...claim, untilMs: nowMs + claimMs }], version);
        return verdict;
      } catch (error) {
        if (!hasErrorCode(error, 'kube_conflict')) throw error;
      }
    }
    throw new SluiceError({
      code: 'kube_conflict',
      operation: 'review',
      object: 'pool or subnet',
      what: `other controllers' reviews came in between ${maxAttempts} times`,
      remedy: 'try again',
    });
  }
}
