import { isDeepStrictEqual } from 'node:util';
import type { SpiderCoordinator, SpiderCoordinatorStatus } from '../api/spidercoordinator.ts';
import { coordinatorStatus, type CidrSources } from './coordinator-cidrs.ts';
import { withoutSpiderFinalizer } from './finalizer.ts';
import type { EventWriter, ObjectAccess } from './ports.ts';

/** Keeps the status of the SpiderCoordinator that counts; lets every deleted one go. */

export interface CoordinatorReconcilerDeps {
  readonly coordinators: Pick<ObjectAccess<SpiderCoordinator>, 'read' | 'replace' | 'replaceStatus'>;
  readonly sources: CidrSources;
  /** The one that counts; the others get no status. */
  readonly name: string;
  readonly writeEvent: EventWriter;
}

export class CoordinatorReconciler {
  readonly #deps: CoordinatorReconcilerDeps;

  constructor(deps: CoordinatorReconcilerDeps) {
    this.#deps = deps;
  }

  /** Key: its name. While the API server cannot be asked, the status stays what it was. */
  async reconcile(name: string): Promise<void> {
    const object = await this.#deps.coordinators.read('', name);
    if (object === undefined) return;
    if (object.metadata.deletionTimestamp) {
      await this.#removeFinalizer(object);
      return;
    }
    if (name !== this.#deps.name) return;
    const type = object.spec?.podCIDRType ?? 'auto';
    const status = await coordinatorStatus(type, object.metadata.annotations ?? {}, this.#deps.sources);
    if (isDeepStrictEqual(known(object.status), status)) return;
    const { reason: _, ...rest } = object.status ?? {};
    await this.#deps.coordinators.replaceStatus({ ...object, status: { ...rest, ...status } });
    const message = `${status.phase ?? ''}${status.reason === undefined ? '' : `: ${status.reason}`}`;
    this.#deps.writeEvent(object, status.reason === undefined ? 'Normal' : 'Warning', status.phase ?? '', message);
  }

  async #removeFinalizer(object: SpiderCoordinator): Promise<void> {
    const released = withoutSpiderFinalizer(object);
    if (released === undefined) return;
    await this.#deps.coordinators.replace(released);
  }
}

function known(status: SpiderCoordinatorStatus | undefined): SpiderCoordinatorStatus {
  const { phase, reason, overlayPodCIDR, serviceCIDR } = status ?? {};
  return { phase, ...(reason === undefined ? {} : { reason }), overlayPodCIDR, serviceCIDR };
}
