/**
 * An API server's answers as to time and order: each request takes effect halfway through its latency, a write of an old
 * version is refused then, and watches lag. Assumed, for an API server and etcd on SSDs in one data centre: reads 3 ms,
 * writes 8 ms, watches 10 ms behind, each times a log-normal factor (sigma 0.4).
 */
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import { IpamTestApi, type ApiStep, type StepHook, type TestAgent } from '../src/cni/ipam-test-api.ts';

const readMs = 3;
const writeMs = 8;
const watchMs = 10;
const sigma = 0.4;

export class TimedApi extends IpamTestApi {
  readonly #history = new Map<string, { readonly atMs: number; readonly pool: SpiderIPPool }[]>();
  /** Requests of any kind. */
  requests = 0;

  override replaceStatus(pool: SpiderIPPool): SpiderIPPool {
    const written = super.replaceStatus(pool);
    const history = this.#history.get(pool.metadata.name ?? '') ?? [];
    history.push({ atMs: performance.now(), pool: written });
    this.#history.set(pool.metadata.name ?? '', history.slice(-64));
    return written;
  }

  timedAgent(node: string, maxRecordsPerPool: number): TestAgent {
    const onStep = this.onStep();
    const first = [...this.pools.values()];
    const cached = (): SpiderIPPool[] => first.map((pool) => this.#seen(pool));
    return this.agent({ node, onStep, cached, deps: { random: Math.random, maxRecordsPerPool } });
  }

  onStep(): StepHook {
    return async (step, when) => {
      if (when === 'before') this.requests++;
      await pause((latencyOf(step) / 2) * factor());
    };
  }

  #seen(first: SpiderIPPool): SpiderIPPool {
    const untilMs = performance.now() - watchMs;
    return this.#history.get(first.metadata.name ?? '')?.findLast(({ atMs }) => atMs <= untilMs)?.pool ?? first;
  }
}

export function latencyOf(step: ApiStep): number {
  return step.startsWith('read') ? readMs : writeMs;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function factor(): number {
  const normal = Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  return Math.exp(sigma * normal);
}
