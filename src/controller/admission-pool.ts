import { poolSchema, type SpiderIPPool } from '../api/spiderippool.ts';
import type { Clock } from '../core/clock.ts';
import { defaultPool, type PoolDefaultsOptions } from '../ipam/pool-defaults.ts';
import { validatePoolCreate, validatePoolUpdate } from '../ipam/pool-validation.ts';
import { allow, allowChanged, deny, type AdmissionRequest, type AdmissionResponse } from './admission.ts';
import { schemaErrors } from './admission-schema.ts';

/** Admission of SpiderIPPools. */

/** How long an admitted pool counts although the API server does not list it: it may still be writing it. */
const claimMs = 10_000;

export interface PoolAdmissionDeps {
  /** From the API server, not from a cache. */
  readonly listPools: () => Promise<readonly SpiderIPPool[]>;
  readonly clock: Clock;
  readonly options?: PoolDefaultsOptions & { readonly disabledFamilies?: readonly number[] };
}

interface Claim {
  readonly pool: SpiderIPPool;
  readonly untilMs: number;
  /** The stored resourceVersion when it was admitted; undefined for a new pool. Another one means: stored. */
  readonly baseVersion: string | undefined;
}

/** Objects that break the schema pass: the API server says more about them, right after the mutation. */
export function mutatePool(request: AdmissionRequest, options: PoolDefaultsOptions = {}): AdmissionResponse {
  const parsed = poolSchema.safeParse(request.object);
  if (!parsed.success || request.operation === 'DELETE') return allow(request);
  const { object, warnings } = defaultPool(parsed.data, options);
  return allowChanged(request, request.object as object, object, warnings);
}

/**
 * Two pools that share addresses and are created at the same instant would each pass, since neither is stored while
 * the other is judged. So reviews are judged one at a time, and each admitted pool counts as existing until it is
 * listed or its claim runs out.
 */
export class PoolValidator {
  readonly #deps: PoolAdmissionDeps;
  readonly #claims = new Map<string, Claim>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(deps: PoolAdmissionDeps) {
    this.#deps = deps;
  }

  validate(request: AdmissionRequest): Promise<AdmissionResponse> {
    const verdict = this.#turn.then(() => this.#judge(request));
    this.#turn = verdict.catch(() => undefined);
    return verdict;
  }

  async #judge(request: AdmissionRequest): Promise<AdmissionResponse> {
    if (request.operation === 'DELETE') return allow(request);
    const parsed = poolSchema.safeParse(request.object);
    if (!parsed.success) return deny(request, request.name ?? '', schemaErrors(parsed.error));
    const pool = parsed.data;
    const name = pool.metadata.name ?? request.name ?? '';
    const listed = await this.#deps.listPools();
    const context = { pools: [...listed, ...this.#pendingClaims(listed, name)], ...this.#disabledFamilies() };
    const old = poolSchema.safeParse(request.oldObject);
    const errors =
      request.operation === 'UPDATE' && old.success
        ? validatePoolUpdate(pool, old.data, context)
        : validatePoolCreate(pool, context);
    if (errors.length > 0) return deny(request, name, errors);
    if (request.dryRun !== true) {
      const untilMs = this.#deps.clock.monotonicMs() + claimMs;
      this.#claims.set(name, { pool, untilMs, baseVersion: versionOf(listed, name) });
    }
    return allow(request);
  }

  #disabledFamilies(): { disabledFamilies?: readonly number[] } {
    const disabledFamilies = this.#deps.options?.disabledFamilies;
    return disabledFamilies === undefined ? {} : { disabledFamilies };
  }

  /** What was admitted for other pools and is not stored yet. A pool's own claim is the same request tried again. */
  #pendingClaims(listed: readonly SpiderIPPool[], ownName: string): SpiderIPPool[] {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const [name, claim] of this.#claims) {
      const isStored = versionOf(listed, name) !== claim.baseVersion;
      if (claim.untilMs <= nowMs || isStored) this.#claims.delete(name);
    }
    return [...this.#claims].filter(([name]) => name !== ownName).map(([, claim]) => claim.pool);
  }
}

function versionOf(pools: readonly SpiderIPPool[], name: string): string | undefined {
  return pools.find((pool) => pool.metadata.name === name)?.metadata.resourceVersion;
}
