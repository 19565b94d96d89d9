/** One API request on a resource: from method and path to the answer. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { attributesOf, authorize } from './authorizer.ts';
import { deleteObject, deleteOptions } from './delete.ts';
import { cloneJson, isObject, type Json, type JsonObject, type KubeObject } from './json.ts';
import { kubeletRoutes, kubeletTarget, proxyRequest, type KubeletSocket } from './kubelet-proxy.ts';
import { filterOf, listObjects } from './list.ts';
import { decodeProtobuf, ProtobufError } from './schema/protobuf.ts';
import { parseResourcePath, type ResourcePath } from './path.ts';
import { encodeList, encodeObject, negotiate, type IncludeObject } from './representation.ts';
import * as status from './status.ts';
import { answerReview, bindPod, evictPod, readScale, success, writeScale } from './subresources.ts';
import { serveWatch } from './watch.ts';
import {
  createObject,
  getObject,
  patchObject,
  serve,
  updateObject,
  type ApiParts,
  type Call,
  type Target,
} from './write.ts';

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly user: string;
  readonly groups: readonly string[];
}

export interface RequestParts extends ApiParts {
  readonly kubeletSocket: KubeletSocket;
}

/** kube-apiserver's limit for a request body. */
const maxBodyBytes = 3 * 1024 * 1024;

export async function serveResource(parts: RequestParts, exchange: Exchange): Promise<void> {
  const path = parseResourcePath(exchange.url.pathname);
  if (path === undefined) throw status.pathNotFound();
  authorizeRequest(parts, exchange, path);
  const resource = parts.registry.find(path.group, path.version, path.plural);
  if (resource === undefined || (path.namespace !== undefined && !resource.namespaced)) throw status.pathNotFound();
  const call = callOf(exchange);
  if (resource.deprecationWarning !== undefined) call.warnings.push(resource.deprecationWarning);
  const target: Target = { resource, namespace: path.namespace, name: path.name ?? '', subresource: path.subresource };
  if (path.subresource !== '') await serveSubresource(parts, exchange, target, call);
  else if (path.name === undefined || path.watch) await serveCollection(parts, exchange, target, path, call);
  else await serveObject(parts, exchange, target, call);
}

/** Everyone may ask about himself. */
function authorizeRequest({ store }: RequestParts, exchange: Exchange, path: ResourcePath): void {
  if (path.plural.startsWith('selfsubject')) return;
  authorize(store, exchange, attributesOf(exchange.request.method ?? '', path, exchange.url.searchParams));
}

function callOf({ url, user, groups }: Exchange): Call {
  const dryRun = url.searchParams.getAll('dryRun');
  if (dryRun.some((value) => value !== 'All')) throw status.badRequest(`Invalid value: "${dryRun.join(',')}": dryRun`);
  const validation = url.searchParams.get('fieldValidation') ?? '';
  const fieldValidation = validation === 'Strict' || validation === 'Ignore' ? validation : 'Warn';
  return { user, groups, dryRun: dryRun.length > 0, fieldValidation, warnings: [] };
}

async function serveCollection(
  parts: RequestParts,
  exchange: Exchange,
  target: Target,
  path: ResourcePath,
  call: Call,
): Promise<void> {
  const { request, url } = exchange;
  const { resource, namespace } = target;
  switch (request.method) {
    case 'GET':
      if (path.watch || isTrue(url.searchParams.get('watch'))) watch(parts, exchange, target, path.name);
      else list(parts, exchange, target);
      return;
    case 'POST': {
      const body = await readObject(request);
      if (!resource.verbs.includes('get'))
        return sendJson(exchange, 201, answerReview(parts, target, body, call), call);
      if (resource.namespaced && namespace === undefined) throw status.methodNotAllowed();
      return sendObject(exchange, target, 201, await createObject(parts, target, body, call), call, parts);
    }
    case 'DELETE':
      return deleteCollection(parts, exchange, target, call);
    default:
      throw status.methodNotAllowed();
  }
}

function isTrue(text: string | null): boolean {
  return text !== null && text !== 'false' && text !== '0';
}

function list(parts: RequestParts, exchange: Exchange, target: Target): void {
  const query = exchange.url.searchParams;
  const form = negotiate(exchange.request.headers.accept);
  const page = listObjects(parts.store, target.resource, target.namespace, query);
  const meta: JsonObject = { resourceVersion: page.resourceVersion };
  if (page.continueToken !== undefined) meta.continue = page.continueToken;
  if (page.remaining !== undefined) meta.remainingItemCount = page.remaining;
  send(exchange, 200, encodeList(target.resource, page.objects, form, includeOf(query), parts.clock.nowMs(), meta));
}

function watch(parts: RequestParts, exchange: Exchange, target: Target, name: string | undefined): void {
  const { request, response, url } = exchange;
  serveWatch(
    {
      store: parts.store,
      resource: target.resource,
      namespace: target.namespace,
      name,
      query: url.searchParams,
      form: negotiate(request.headers.accept),
      include: includeOf(url.searchParams),
      nowMs: () => parts.clock.nowMs(),
    },
    request,
    response,
  );
}

async function deleteCollection(parts: RequestParts, exchange: Exchange, target: Target, call: Call): Promise<void> {
  const body = await readBody(exchange.request);
  const options = deleteOptions(isObject(body) ? body : undefined, exchange.url.searchParams);
  const matches = filterOf(target.resource, exchange.url.searchParams);
  const doomed = parts.store
    .list(target.resource.bucket, target.namespace)
    .map((stored) => serve(target.resource, stored))
    .filter(matches);
  const deleted: KubeObject[] = [];
  for (const { metadata } of doomed) {
    const one = { ...target, namespace: metadata.namespace, name: metadata.name };
    deleted.push((await deleteObject(parts, one, options, call)).object);
  }
  const meta = { resourceVersion: String(parts.store.resourceVersion) };
  send(exchange, 200, encodeList(target.resource, deleted, 'object', 'None', parts.clock.nowMs(), meta), call);
}

async function serveObject(parts: RequestParts, exchange: Exchange, target: Target, call: Call): Promise<void> {
  const { request, url } = exchange;
  switch (request.method) {
    case 'GET':
      if (isTrue(url.searchParams.get('watch'))) return watch(parts, exchange, target, target.name);
      return sendObject(exchange, target, 200, getObject(parts.store, target), call, parts);
    case 'PUT':
      return sendObject(
        exchange,
        target,
        200,
        await updateObject(parts, target, await readObject(request), call),
        call,
        parts,
      );
    case 'PATCH': {
      const patched = await patchObject(parts, target, contentTypeOf(request), await readBody(request), call);
      return sendObject(exchange, target, 200, patched, call, parts);
    }
    case 'DELETE':
      return deleteOne(parts, exchange, target, call);
    default:
      throw status.methodNotAllowed();
  }
}

async function deleteOne(parts: RequestParts, exchange: Exchange, target: Target, call: Call): Promise<void> {
  const body = await readBody(exchange.request);
  const options = deleteOptions(isObject(body) ? body : undefined, exchange.url.searchParams);
  const { object, gone } = await deleteObject(parts, target, options, call);
  const { resource } = target;
  // Pods and namespaces answer with the object, as does everything that is still held; the rest with a Status.
  if (!gone || resource.bucket === '/pods') return sendObject(exchange, target, 200, object, call, parts);
  const { name, uid } = object.metadata;
  const details = { name, ...(resource.group === '' ? {} : { group: resource.group }), kind: resource.plural, uid };
  sendJson(exchange, 200, success(200, details), call);
}

async function serveSubresource(parts: RequestParts, exchange: Exchange, target: Target, call: Call): Promise<void> {
  const { resource, subresource } = target;
  if (subresource === 'status' && resource.hasStatus) return serveObject(parts, exchange, target, call);
  if (subresource === 'scale' && resource.scale !== undefined) return serveScale(parts, exchange, target, call);
  if (resource.bucket === '/namespaces' && subresource === 'finalize')
    return serveObject(parts, exchange, target, call);
  if (!Object.hasOwn(resource.connects, subresource)) throw status.pathNotFound();
  if (subresource === 'binding' || subresource === 'eviction') {
    if (exchange.request.method !== 'POST') throw status.methodNotAllowed();
    const body = await readObject(exchange.request);
    const answer = subresource === 'binding' ? bindPod(parts, target, body, call) : evictPod(parts, target, body, call);
    return sendJson(exchange, 201, await answer, call);
  }
  if (subresource in kubeletRoutes) return serveKubelet(parts, exchange, target);
  throw status.methodNotAllowed();
}

async function serveKubelet(parts: RequestParts, exchange: Exchange, target: Target): Promise<void> {
  const pod = getObject(parts.store, target);
  if (target.subresource !== 'log') throw status.badRequest('Upgrade request required');
  const to = kubeletTarget(pod, target.subresource, exchange.url.searchParams, parts.kubeletSocket);
  if (to === undefined) {
    exchange.response.writeHead(200, { 'content-type': 'text/plain' }).end();
    return;
  }
  await proxyRequest(to, exchange.request, exchange.response);
}

async function serveScale(parts: RequestParts, exchange: Exchange, target: Target, call: Call): Promise<void> {
  const { request } = exchange;
  switch (request.method) {
    case 'GET':
      return sendJson(exchange, 200, readScale(parts, target), call);
    case 'PUT':
      return sendJson(exchange, 200, await writeScale(parts, target, await readObject(request), undefined, call), call);
    case 'PATCH': {
      const body = await readBody(request);
      return sendJson(exchange, 200, await writeScale(parts, target, body, contentTypeOf(request), call), call);
    }
    default:
      throw status.methodNotAllowed();
  }
}

function includeOf(query: URLSearchParams): IncludeObject {
  const wanted = query.get('includeObject');
  return wanted === 'None' || wanted === 'Object' ? wanted : 'Metadata';
}

function contentTypeOf(request: IncomingMessage): string {
  return request.headers['content-type'] ?? 'application/json';
}

async function readObject(request: IncomingMessage): Promise<JsonObject> {
  const body = await readBody(request);
  if (isObject(body)) return body;
  throw status.badRequest('the body of the request is not an object');
}

async function readBody(request: IncomingMessage): Promise<Json> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBodyBytes) {
      throw new status.ApiError(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${maxBodyBytes}`);
    }
    chunks.push(chunk);
  }
  const bytes = Buffer.concat(chunks);
  if (bytes.length === 0) return null;
  const type = contentTypeOf(request).split(';')[0] ?? '';
  if (type.includes('protobuf')) return readProtobuf(bytes);
  const text = bytes.toString('utf8');
  try {
    if (type.endsWith('yaml')) return (await import('../../core/yaml.ts')).parse(text) as Json;
    return JSON.parse(text) as Json;
  } catch (error) {
    throw status.badRequest(
      `couldn't get version/kind; json parse error: ${error instanceof Error ? error.message : ''}`,
    );
  }
}

function readProtobuf(bytes: Buffer): JsonObject {
  try {
    return decodeProtobuf(bytes);
  } catch (error) {
    if (error instanceof ProtobufError) throw status.unsupportedMediaType(error.message);
    throw error;
  }
}

function sendObject(
  exchange: Exchange,
  target: Target,
  code: number,
  object: KubeObject,
  call: Call,
  parts: ApiParts,
): void {
  const form = negotiate(exchange.request.headers.accept);
  const include = includeOf(exchange.url.searchParams);
  // A dry run's object is not stored and may be changed again: encode a copy, not through the cache.
  const shown = call.dryRun ? cloneJson(object) : object;
  send(exchange, code, encodeObject(target.resource, shown, form, include, parts.clock.nowMs()), call);
}

export function sendJson(exchange: Exchange, code: number, value: JsonObject, call?: Call): void {
  send(exchange, code, JSON.stringify(value), call);
}

/** Sends a document that is not an object of a resource, under its own content type. */
export function sendDocument({ response }: Exchange, value: JsonObject, contentType: string): void {
  const text = JSON.stringify(value);
  response.writeHead(200, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) }).end(text);
}

function send({ response }: Exchange, code: number, text: string, call?: Call): void {
  const warnings = (call?.warnings ?? []).map((text) => `299 - ${quote(text)}`);
  if (warnings.length > 0) response.setHeader('warning', warnings);
  response.writeHead(code, {
    'content-type': 'application/json',
    'cache-control': 'no-cache, private',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}

/** An HTTP quoted-string; what a header cannot carry is dropped. */
export function quote(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]/g, (char) => (char === '\n' || char === '\t' ? ' ' : ''));
  return `"${printable.replace(/[\\"]/g, '\\$&')}"`;
}
