/** Metrics of address allocation by the names that Spiderpool documents: docs/reference/address-metrics.md. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { PluginHandler } from '../api/cni.ts';
import type { IpamObserver, PoolPurpose } from '../cni/ipam-deps.ts';
import { SluiceError, type ErrorCode } from '../core/error.ts';

/** Spiderpool's buckets. */
const buckets = [0.1, 0.3, 0.5, 1, 3, 5, 7, 10, 15];

export class IpamMetrics implements IpamObserver {
  readonly #operations: Readonly<Record<PoolPurpose, OperationMetrics>>;
  readonly #autoPoolWaits: Counter;

  constructor(registry: Registry) {
    this.#autoPoolWaits = counter(
      registry,
      'spiderpool_debug_auto_pool_waited_for_available_counts',
      'Requests that waited for the pool of an application',
    );
    this.#operations = {
      allocation: new OperationMetrics(registry, 'allocation', {
        ipam_no_pool: 'err_no_available_pool',
        ipam_conflict: 'err_retries_exhausted',
        ipam_exhausted: 'err_ip_used_out',
      }),
      release: new OperationMetrics(registry, 'release', { ipam_conflict: 'err_retries_exhausted' }),
    };
  }

  /** The handler, measured. */
  measured(handler: PluginHandler, nowMs: () => number): PluginHandler {
    return async (request, signal) => {
      const call = () => handler(request, signal);
      if (request.command === 'ADD') return this.measure('allocation', nowMs, call);
      return request.command === 'DEL' ? this.measure('release', nowMs, call) : call();
    };
  }

  /** The request, measured, whichever way it came. */
  async measure<T>(purpose: PoolPurpose, nowMs: () => number, call: () => Promise<T>): Promise<T> {
    const metrics = this.#operations[purpose];
    const begunMs = nowMs();
    metrics.begun();
    try {
      return await call();
    } catch (error) {
      metrics.failed(error);
      throw error;
    } finally {
      metrics.ended((nowMs() - begunMs) / 1000);
    }
  }

  poolConflict(purpose: PoolPurpose): void {
    this.#operations[purpose].conflicts.inc();
  }

  poolQueued(purpose: PoolPurpose, waitedMs: number): void {
    this.#operations[purpose].queuing.observe(waitedMs / 1000);
  }

  autoPoolAwaited(): void {
    this.#autoPoolWaits.inc();
  }
}

class OperationMetrics {
  readonly conflicts: Counter;
  readonly queuing: DurationMetrics;
  readonly #requests: Counter;
  readonly #failures: Counter;
  readonly #duration: DurationMetrics;
  readonly #internal: Counter;
  readonly #byCode: Partial<Record<ErrorCode, Counter>>;

  constructor(registry: Registry, operation: PoolPurpose, errors: Partial<Record<ErrorCode, string>>) {
    const prefix = `spiderpool_ipam_${operation}`;
    this.#requests = counter(registry, `${prefix}_counts`, `Requests for an ${operation} of addresses`);
    this.#failures = counter(registry, `${prefix}_failure_counts`, `Requests that failed`);
    this.conflicts = counter(
      registry,
      `${prefix}_update_ippool_conflict_counts`,
      'Writes of a pool that came too late',
    );
    this.#internal = counter(registry, `${prefix}_err_internal_counts`, 'Failures for any other reason');
    this.#byCode = Object.fromEntries(
      Object.entries(errors).map(([code, name]) => [
        code,
        counter(registry, `${prefix}_${name}_counts`, `Failures with the code ${code}`),
      ]),
    );
    this.#duration = new DurationMetrics(registry, `${prefix}`, 'duration_seconds', 'From the request to its answer');
    this.queuing = new DurationMetrics(registry, prefix, 'limit_duration_seconds', 'Wait for the turn at a pool');
  }

  begun(): void {
    this.#requests.inc();
  }

  failed(error: unknown): void {
    this.#failures.inc();
    (this.#byCode[codeOf(error)] ?? this.#internal).inc();
  }

  ended(seconds: number): void {
    this.#duration.observe(seconds);
  }
}

/** A histogram, and the average, largest, smallest and latest of it as gauges. */
class DurationMetrics {
  readonly #histogram: Histogram;
  readonly #gauges: Readonly<Record<'average' | 'max' | 'min' | 'latest', Gauge>>;
  #count = 0;
  #sum = 0;
  #max = 0;
  #min = Infinity;

  constructor(registry: Registry, prefix: string, suffix: string, help: string) {
    this.#histogram = new Histogram({ name: `${prefix}_${suffix}`, help, buckets, registers: [registry] });
    const gauge = (which: string): Gauge =>
      new Gauge({ name: `${prefix}_${which}_${suffix}`, help: `${help}: ${which}`, registers: [registry] });
    this.#gauges = { average: gauge('average'), max: gauge('max'), min: gauge('min'), latest: gauge('latest') };
  }

  observe(seconds: number): void {
    this.#count++;
    this.#sum += seconds;
    this.#max = Math.max(this.#max, seconds);
    this.#min = Math.min(this.#min, seconds);
    this.#histogram.observe(seconds);
    this.#gauges.average.set(this.#sum / this.#count);
    this.#gauges.max.set(this.#max);
    this.#gauges.min.set(this.#min);
    this.#gauges.latest.set(seconds);
  }
}

/** Counters end in _total where Prometheus reads them, as those of Spiderpool's exporter do. */
function counter(registry: Registry, name: string, help: string): Counter {
  return new Counter({ name: `${name}_total`, help, registers: [registry] });
}

/** The plugin's error carries the allocator's as its cause. */
function codeOf(error: unknown): ErrorCode {
  for (let each = error; each instanceof Error; each = each.cause) if (each instanceof SluiceError) return each.code;
  return 'internal';
}
