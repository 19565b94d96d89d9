import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import type { FastifyInstance } from 'fastify';
import { leases } from '../api/resources.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import { readSettings, type Settings } from '../ipam/settings.ts';
import { createKubeClient, type KubeClient } from '../kube/client.ts';
import { createAdmission, type Admission } from './admission-server.ts';
import { createHealthServer } from './health.ts';
import { LeaderElection } from './leader.ts';
import { ControllerMetrics } from './metrics.ts';
import { defaultNamespace, type ControllerOptions } from './options.ts';
import { startReconcilers } from './reconcilers.ts';
import type { WebhookAddress } from './webhook-registration.ts';
import { WebhookUpkeep } from './webhook-upkeep.ts';

export interface RunningController {
  /** Base URLs. */
  readonly webhookUrl: string;
  readonly healthUrl: string;
  /** Resolves when the controller leads, its copies are filled and its webhooks are registered. */
  readonly ready: Promise<void>;
  /** Resolves after an orderly stop; rejects when the controller cannot go on (the lease was lost, no API). */
  readonly stopped: Promise<void>;
}

/** Resolves as soon as the ports are open. */
export async function startController(options: ControllerOptions): Promise<RunningController> {
  const clock = options.clock ?? systemClock;
  const client = createKubeClient(options.kubeConfig, { userAgent: 'sluice-controller' });
  const progress = { notReady: 'starting' as string | undefined };
  const metrics = new ControllerMetrics();
  const health = createHealthServer(() => progress.notReady, metrics.registry);
  const settings = options.settings ?? readSettings(undefined).settings;
  const admission = await createAdmission({ ...options, client, clock, settings });
  const close = async (): Promise<void> => {
    await admission.server.close();
    await health.close();
    client.close();
  };
  const { healthUrl, webhookUrl } = await openPorts(health, admission, options).catch(async (error: unknown) => {
    // An open port keeps the process, which its supervisor then takes for one that is still starting.
    await close();
    throw error;
  });
  const address: WebhookAddress =
    options.webhook.service === undefined
      ? { kind: 'url', hostPort: options.webhook.url ?? new URL(webhookUrl).host }
      : { kind: 'service', ...options.webhook.service };

  const ready = deferred();
  const webhooks = new WebhookUpkeep({ admission, client, address, settings, clock, log: options.log });
  const stop = new AbortController();
  const upkeep = webhooks.run(stop.signal);
  const run = lead(options, { client, clock, settings, metrics, webhooks, webhookUrl }, () => {
    progress.notReady = undefined;
    ready.resolve();
  });
  const stopped = run.finally(async () => {
    progress.notReady = 'stopping';
    ready.reject(
      new SluiceError({ code: 'cancelled', operation: 'start', object: 'controller', what: 'it was stopped' }),
    );
    stop.abort();
    await upkeep;
    await close();
  });
  stopped.catch(() => undefined);
  return { webhookUrl, healthUrl, ready: ready.promise, stopped };
}

async function openPorts(health: FastifyInstance, admission: Admission, options: ControllerOptions) {
  const { healthHost = '127.0.0.1', healthPort, webhook } = options;
  return {
    healthUrl: await listen(health, { host: healthHost, port: healthPort }, '--health-port'),
    webhookUrl: await listen(admission.server, { host: webhook.host, port: webhook.port }, '--webhook-port'),
  };
}

async function listen(server: FastifyInstance, at: { host: string; port: number }, flag: string): Promise<string> {
  try {
    return await server.listen(at);
  } catch (cause) {
    throw new SluiceError({
      code: 'internal',
      operation: 'listen on',
      object: `${at.host}:${at.port} (${flag})`,
      what: 'the port cannot be had',
      remedy: 'end the process that has the port (ss -tlnp), or give another one',
      cause,
    });
  }
}

interface Parts {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly settings: Settings;
  readonly metrics: ControllerMetrics;
  readonly webhooks: WebhookUpkeep;
  readonly webhookUrl: string;
}

async function lead(options: ControllerOptions, parts: Parts, onReady: () => void): Promise<void> {
  const { signal, log } = options;
  const { client, clock } = parts;
  const namespace = options.namespace ?? defaultNamespace;
  // Unique while the process lives, since nobody else can listen there; the same after a restart, which then need
  // not wait for its own old lease to run out.
  const identity = `${hostname()}/${new URL(parts.webhookUrl).host}`;
  const election = new LeaderElection({ client, namespace, identity, clock, log });
  const hasLeases = await servesLeases(client, namespace, clock, options);
  const work = new AbortController();
  // Each informer's watch and each loop waits for it, more than ten of them: no leak, as Node takes more listeners for
  // (src/kube/informer.test.ts counts them).
  setMaxListeners(0, work.signal);
  const stopWork = (): void => work.abort();
  signal.addEventListener('abort', stopWork, { once: true });
  try {
    if (hasLeases) await election.acquire(signal);
    signal.throwIfAborted();
    const reconcilers = await startReconcilers({
      ...{ client, clock, log, signal: work.signal },
      ...{ settings: parts.settings, metrics: parts.metrics },
    });
    await parts.webhooks.lead();
    log.info({ webhook: parts.webhookUrl }, 'controller ready');
    onReady();
    const outcome = hasLeases ? await election.hold(signal) : await aborted(signal);
    stopWork();
    await reconcilers.stopped();
    if (outcome === 'lost') throw leaseLost();
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    stopWork();
    signal.removeEventListener('abort', stopWork);
    if (hasLeases) await election.release();
  }
}

/** API servers without coordination.k8s.io exist in tests only; there the controller is alone. */
async function servesLeases(
  client: KubeClient,
  namespace: string,
  clock: Clock,
  { signal, log }: ControllerOptions,
): Promise<boolean> {
  for (;;) {
    try {
      await client.list(leases, { namespace, limit: 1 }, { signal });
      return true;
    } catch (error) {
      if (hasErrorCode(error, 'kube_not_found')) {
        log.warn({}, 'the API server has no leases: no other controller may run beside this one');
        return false;
      }
      if (signal.aborted || !hasErrorCode(error, 'kube_unreachable')) throw error;
      log.warn({}, 'waiting for the API server');
      await clock.sleep(1000, signal);
    }
  }
}

function aborted(signal: AbortSignal): Promise<'stopped'> {
  if (signal.aborted) return Promise.resolve('stopped');
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve('stopped'), { once: true }));
}

function leaseLost(): SluiceError {
  return new SluiceError({
    code: 'cancelled',
    operation: 'hold the lease of',
    object: 'controller',
    what: 'it could not be renewed in time',
    remedy: 'the controller ends and is started again by its supervisor',
  });
}

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve: () => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  // Whoever does not wait for it does not want its failure reported as unhandled either.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
