import { isDeepStrictEqual } from 'node:util';
import type { OwnerReference } from '../api/spider-schema.ts';
import type { NetworkAttachmentDefinition, SpiderMultusConfig } from '../api/spidermultusconfig.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, hasErrorCode, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { controllerOf } from '../ipam/pod-owner.ts';
import { attachmentStatus } from './attachment-status.ts';
import { attachmentName, desiredAttachment, foreignController } from './attachment.ts';
import type { EventWriter, ObjectAccess } from './ports.ts';

/** SpiderMultusConfig → NetworkAttachmentDefinition: whatever happened, make the attachment what the config says. */

export interface AttachmentReconcilerDeps {
  readonly configs: Pick<ObjectAccess<SpiderMultusConfig>, 'cached' | 'read' | 'replaceStatus'>;
  readonly attachments: Pick<ObjectAccess<NetworkAttachmentDefinition>, 'cached' | 'read' | 'create' | 'replace'> & {
    /** The object of this UID only; succeeds when it is gone. */
    remove(attachment: NetworkAttachmentDefinition): Promise<void>;
  };
  readonly writeEvent: EventWriter;
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly log: Logger;
}

export class AttachmentReconciler {
  readonly #deps: AttachmentReconcilerDeps;

  constructor(deps: AttachmentReconcilerDeps) {
    this.#deps = deps;
  }

  /** Keys of the configs that an attachment belongs to: its owner, and those that want its name. */
  configsOf(attachment: NetworkAttachmentDefinition): string[] {
    const { namespace, name, ownerReferences = [] } = attachment.metadata;
    const owners = ownerReferences.filter(({ kind }) => kind === 'SpiderMultusConfig').map((owner) => owner.name);
    const wanting = this.#deps.configs
      .cached()
      .filter((config) => config.metadata.namespace === namespace && attachmentName(config) === name)
      .map((config) => config.metadata.name ?? '');
    return [...new Set([...owners, ...wanting])].map((config) => `${namespace ?? ''}/${config}`);
  }

  /** Key: namespace/name of a config. */
  async reconcile(key: string): Promise<void> {
    const [namespace = '', name = ''] = key.split('/');
    const config = await this.#deps.configs.read(namespace, name);
    // Gone or going: the garbage collector takes the attachment, by its owner reference.
    if (config === undefined || config.metadata.deletionTimestamp) return;
    try {
      await this.#apply(config);
      await this.#removeOthers(config);
    } catch (error) {
      // A conflict is no failure: somebody else wrote in between, and the retry sees it.
      if (!hasErrorCode(error, 'kube_conflict')) await this.#fail(config, error);
      throw error;
    }
    const message = `NetworkAttachmentDefinition ${namespace}/${attachmentName(config)} is what this asks for`;
    await this.#writeStatus(config, { isReady: true, reason: 'Generated', message });
  }

  async #fail(config: SpiderMultusConfig, error: unknown): Promise<void> {
    const { log, writeEvent } = this.#deps;
    const message = formatErrorChain(error);
    writeEvent(config, 'Warning', 'AttachmentFailed', message);
    const failed = { isReady: false, reason: 'AttachmentFailed', message };
    await this.#writeStatus(config, failed).catch((cause: unknown) => {
      log.warn({ error: formatErrorChain(cause) }, 'status of a SpiderMultusConfig not written');
    });
  }

  async #writeStatus(
    config: SpiderMultusConfig,
    outcome: { readonly isReady: boolean; readonly reason: string; readonly message: string },
  ): Promise<void> {
    const status = attachmentStatus(config, outcome, this.#deps.clock.nowMs());
    if (!isDeepStrictEqual(status, config.status)) await this.#deps.configs.replaceStatus({ ...config, status });
  }

  /** What it generated under another name, before its annotation cr-name changed: nobody else would ever remove it. */
  async #removeOthers(config: SpiderMultusConfig): Promise<void> {
    const { attachments } = this.#deps;
    const { namespace = '', uid } = config.metadata;
    const isOld = (attachment: NetworkAttachmentDefinition | undefined): boolean =>
      attachment !== undefined &&
      controllerOf(attachment.metadata)?.uid === uid &&
      !attachment.metadata.deletionTimestamp &&
      attachment.metadata.name !== attachmentName(config);
    for (const { metadata } of attachments
      .cached()
      .filter((each) => each.metadata.namespace === namespace && isOld(each))) {
      const actual = await attachments.read(namespace, metadata.name ?? '');
      if (actual === undefined || !isOld(actual)) continue;
      await attachments.remove(actual);
      const message = `removed NetworkAttachmentDefinition ${namespace}/${metadata.name ?? ''}: the name is ${attachmentName(config)} now`;
      this.#report(config, 'AttachmentRemoved', message);
    }
  }

  async #apply(config: SpiderMultusConfig): Promise<void> {
    const desired = desiredAttachment(config);
    const { namespace = '', name = '' } = desired.metadata;
    const actual = await this.#deps.attachments.read(namespace, name);
    if (actual === undefined) {
      await this.#deps.attachments.create(desired);
      this.#report(config, 'AttachmentCreated', `created NetworkAttachmentDefinition ${namespace}/${name}`);
      return;
    }
    refuseForeign(actual, config);
    const next = merged(actual, desired);
    if (isDeepStrictEqual(next, actual)) return;
    await this.#deps.attachments.replace(next);
    this.#report(config, 'AttachmentUpdated', `updated NetworkAttachmentDefinition ${namespace}/${name}`);
  }

  #report(config: SpiderMultusConfig, reason: string, message: string): void {
    this.#deps.log.info({ config: `${config.metadata.namespace ?? ''}/${config.metadata.name ?? ''}` }, message);
    this.#deps.writeEvent(config, 'Normal', reason, message);
  }
}

/** The actual object with our fields; labels and other owners that are no controllers stay. */
function merged(
  actual: NetworkAttachmentDefinition,
  desired: NetworkAttachmentDefinition,
): NetworkAttachmentDefinition {
  const { annotations: _, ...metadata } = actual.metadata;
  const annotations = desired.metadata.annotations ?? {};
  const ownerReferences = mergedOwners(actual.metadata.ownerReferences ?? [], desired.metadata.ownerReferences ?? []);
  return {
    ...actual,
    metadata: { ...metadata, ...(Object.keys(annotations).length > 0 ? { annotations } : {}), ownerReferences },
    spec: desired.spec ?? {},
  };
}

function mergedOwners(actual: readonly OwnerReference[], desired: readonly OwnerReference[]): OwnerReference[] {
  const isReplaced = (owner: OwnerReference): boolean =>
    owner.controller === true || desired.some((own) => own.kind === owner.kind && own.name === owner.name);
  return [...actual.filter((owner) => !isReplaced(owner)), ...desired];
}

function refuseForeign(attachment: NetworkAttachmentDefinition, config: SpiderMultusConfig): void {
  const { namespace = '', name = '' } = attachment.metadata;
  const object = `NetworkAttachmentDefinition ${namespace}/${name}`;
  if (attachment.metadata.deletionTimestamp) {
    const what = 'is being deleted; it is made again once it is gone';
    throw new SluiceError({ code: 'kube_conflict', operation: 'update', object, what });
  }
  const owner = foreignController(attachment, config);
  if (owner === undefined) return;
  throw new SluiceError({
    code: 'already_exists',
    operation: 'generate',
    object,
    what: `the net-attach-def ${namespace}/${name} already exists and is managed by ${owner.kind} ${namespace}/${owner.name}.`,
    remedy: `delete one of the two, or give ${config.metadata.name ?? ''} another target with the annotation multus.spidernet.io/cr-name`,
  });
}
