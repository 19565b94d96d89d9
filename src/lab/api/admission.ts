/** Admission webhooks (admissionregistration.k8s.io/v1): who is called for a request, the call, and what its answer does. */
import { request as httpsRequest } from 'node:https';
import { randomUUID } from 'node:crypto';
import type { Logger } from '../../core/log.ts';
import { boolAt, isArray, isObject, numberAt, objectAt, objectsAt, stringAt, stringsAt } from './json.ts';
import type { Json, JsonObject, KubeObject } from './json.ts';
import { selectorMatches } from './kinds/selector.ts';
import { applyJsonPatch } from './patch.ts';
import type { Resource } from './resource.ts';
import { ApiError, internalError } from './status.ts';
import type { Store } from './store.ts';
import type { Call } from './write.ts';

export interface AdmissionRequest {
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly name: string;
  readonly subresource: string;
  readonly operation: 'CREATE' | 'UPDATE' | 'DELETE';
  readonly object: KubeObject | undefined;
  readonly oldObject?: KubeObject | undefined;
  readonly call: Call;
}

interface Answer {
  readonly allowed: boolean;
  readonly patch?: Json;
  readonly status?: JsonObject | undefined;
}

const registration = 'admissionregistration.k8s.io';
/** Larger answers of a webhook are refused. */
const maxAnswerBytes = 3 * 1024 * 1024;

export class Admission {
  private readonly store: Store;
  private readonly log: Logger;

  constructor(store: Store, log: Logger) {
    this.store = store;
    this.log = log;
  }

  /** The object after all matching mutating webhooks, in order of configuration name. */
  async mutate(request: AdmissionRequest & { readonly object: KubeObject | undefined }): Promise<JsonObject> {
    let object: JsonObject = request.object ?? {};
    for (const webhook of this.matching('mutatingwebhookconfigurations', request)) {
      const answer = await this.ask(webhook, { ...request, object: object as KubeObject });
      if (answer?.patch !== undefined) object = await applyJsonPatch(object, answer.patch);
    }
    return object;
  }

  async validate(request: AdmissionRequest): Promise<void> {
    for (const webhook of this.matching('validatingwebhookconfigurations', request)) {
      await this.ask(webhook, request);
    }
  }

  async validateDelete(request: AdmissionRequest): Promise<void> {
    for (const webhook of this.matching('mutatingwebhookconfigurations', request)) await this.ask(webhook, request);
    await this.validate(request);
  }

  private matching(plural: string, request: AdmissionRequest): JsonObject[] {
    // Webhooks never see their own configuration: a broken one must stay removable.
    if (request.resource.group === registration) return [];
    return this.store
      .list(`${registration}/${plural}`)
      .flatMap((configuration) => objectsAt(configuration, 'webhooks'))
      .filter((webhook) => matchesRules(webhook, request) && this.matchesSelectors(webhook, request));
  }

  private matchesSelectors(webhook: JsonObject, request: AdmissionRequest): boolean {
    const objectSelector = objectAt(webhook, 'objectSelector') ?? {};
    const candidates = [request.object, request.oldObject].filter((object) => object !== undefined);
    if (!candidates.some((object) => selectorMatches(objectSelector, object.metadata.labels ?? {}))) return false;
    const isNamespace = request.resource.bucket === '/namespaces';
    if (!request.resource.namespaced && !isNamespace) return true;
    const namespace = isNamespace ? candidates[0] : this.store.get('/namespaces', request.namespace ?? '');
    return selectorMatches(objectAt(webhook, 'namespaceSelector') ?? {}, namespace?.metadata.labels ?? {});
  }

  /** undefined when the webhook failed and its failurePolicy is Ignore; throws when it denies. */
  private async ask(webhook: JsonObject, request: AdmissionRequest): Promise<Answer | undefined> {
    const name = stringAt(webhook, 'name') ?? '';
    const uid = randomUUID();
    let answer: Answer;
    try {
      const body = await post(webhook, JSON.stringify(review(uid, request)), request.call.dryRun);
      answer = readAnswer(body, uid, name, request.call.warnings);
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      this.log.warn({ webhook: name, error: what }, 'admission webhook failed');
      if (webhook.failurePolicy === 'Ignore') return undefined;
      throw internalError(`failed calling webhook "${name}": failed to call webhook: ${what}`);
    }
    if (!answer.allowed) throw denied(name, answer.status);
    return answer;
  }
}

/** "admission webhook … denied the request: …" with the webhook's own code. */
function denied(name: string, status: JsonObject | undefined): ApiError {
  const message = stringAt(status, 'message') ?? '';
  const reason = stringAt(status, 'reason') ?? '';
  const told = message !== '' ? `: ${message}` : reason !== '' ? `: ${reason}` : ' without explanation';
  const code = numberAt(status, 'code') ?? 403;
  const fallback = code === 403 ? 'Forbidden' : code === 422 ? 'Invalid' : code === 400 ? 'BadRequest' : '';
  return new ApiError(
    code < 400 ? 403 : code,
    reason === '' ? fallback : reason,
    `admission webhook "${name}" denied the request${told}`,
    {
      ...(objectAt(status, 'details') ?? {}),
    },
  );
}

function matchesRules(webhook: JsonObject, request: AdmissionRequest): boolean {
  const { resource, subresource, operation } = request;
  const full = subresource === '' ? resource.plural : `${resource.plural}/${subresource}`;
  const has = (rule: JsonObject, name: string, value: string): boolean => {
    const list = stringsAt(rule, name);
    return list.includes('*') || list.includes(value);
  };
  return objectsAt(webhook, 'rules').some((rule) => {
    const scope = stringAt(rule, 'scope') ?? '*';
    if (scope !== '*' && (scope === 'Namespaced') !== resource.namespaced) return false;
    const resources = stringsAt(rule, 'resources');
    const resourceMatches =
      resources.includes('*/*') ||
      resources.includes(full) ||
      (resources.includes('*') && subresource === '') ||
      resources.includes(`${resource.plural}/*`) ||
      (subresource !== '' && resources.includes(`*/${subresource}`));
    return (
      resourceMatches &&
      has(rule, 'operations', operation) &&
      has(rule, 'apiGroups', resource.group) &&
      has(rule, 'apiVersions', resource.version)
    );
  });
}

function review(uid: string, request: AdmissionRequest): JsonObject {
  const { resource, call } = request;
  const kind = { group: resource.group, version: resource.version, kind: resource.kind };
  const gvr = { group: resource.group, version: resource.version, resource: resource.plural };
  const sub =
    request.subresource === '' ? {} : { subResource: request.subresource, requestSubResource: request.subresource };
  return {
    kind: 'AdmissionReview',
    apiVersion: 'admission.k8s.io/v1',
    request: {
      uid,
      kind,
      resource: gvr,
      requestKind: kind,
      requestResource: gvr,
      ...sub,
      name: request.name,
      ...(request.namespace === undefined ? {} : { namespace: request.namespace }),
      operation: request.operation,
      userInfo: { username: call.user, groups: [...call.groups] },
      object: request.object ?? null,
      oldObject: request.oldObject ?? null,
      dryRun: call.dryRun,
      options: {
        kind: `${request.operation.charAt(0)}${request.operation.slice(1).toLowerCase()}Options`,
        apiVersion: 'meta.k8s.io/v1',
      },
    },
  };
}

function readAnswer(body: Json, uid: string, name: string, warnings: string[]): Answer {
  const response = objectAt(body, 'response');
  if (response === undefined) throw new Error(`webhook "${name}" answered without a response`);
  if (stringAt(response, 'uid') !== uid)
    throw new Error(`expected response.uid="${uid}", got "${stringAt(response, 'uid') ?? ''}"`);
  warnings.push(...stringsAt(response, 'warnings'));
  const encoded = stringAt(response, 'patch');
  const patch =
    encoded === undefined ? undefined : (JSON.parse(Buffer.from(encoded, 'base64').toString('utf8')) as Json);
  if (patch !== undefined && !isArray(patch))
    throw new Error(`webhook "${name}" sent a patch that is not a JSON patch`);
  const status = objectAt(response, 'status');
  return { allowed: boolAt(response, 'allowed') ?? false, status, ...(patch === undefined ? {} : { patch }) };
}

function post(webhook: JsonObject, body: string, dryRun: boolean): Promise<Json> {
  const client = objectAt(webhook, 'clientConfig');
  const url = stringAt(client, 'url');
  if (url === undefined) throw new Error('the lab calls webhooks by url only, not through a service');
  if (dryRun && stringAt(webhook, 'sideEffects') !== 'None' && stringAt(webhook, 'sideEffects') !== 'NoneOnDryRun') {
    throw new Error('the webhook has side effects and does not support dry run');
  }
  const timeoutMs = (numberAt(webhook, 'timeoutSeconds') ?? 10) * 1000;
  const bundle = stringAt(client, 'caBundle');
  const target = new URL(url);
  target.searchParams.set('timeout', `${timeoutMs / 1000}s`);
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(new Error(`Post "${target.href}": ${error.message}`));
    const request = httpsRequest(
      target,
      {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          accept: 'application/json',
          'content-length': Buffer.byteLength(body),
        },
        signal: AbortSignal.timeout(timeoutMs),
        ...(bundle === undefined ? {} : { ca: Buffer.from(bundle, 'base64') }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxAnswerBytes) request.destroy(new Error(`answer larger than ${maxAnswerBytes} bytes`));
          else chunks.push(chunk);
        });
        response.on('error', fail);
        response.on('end', () => {
          try {
            if (response.statusCode !== 200)
              throw new Error(`the webhook answered with status ${response.statusCode ?? 0}`);
            const parsed = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Json;
            if (!isObject(parsed)) throw new Error('the answer is not an AdmissionReview');
            resolve(parsed);
          } catch (error) {
            fail(error as Error);
          }
        });
      },
    );
    request.on('error', (error) =>
      fail(error.name === 'TimeoutError' ? new Error('context deadline exceeded') : error),
    );
    request.end(body);
  });
}
