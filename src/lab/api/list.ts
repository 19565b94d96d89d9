/** Lists: selectors, chunks with a continue token, and reads at a past resourceVersion. */
import type { KubeObject } from './json.ts';
import { keyOf, selectableFields, type Resource } from './resource.ts';
import { matchesFields, matchesLabels, parseFieldSelector, parseLabelSelector } from './selectors.ts';
import { ApiError, badRequest, expired } from './status.ts';
import type { Store } from './store.ts';
import { serve } from './write.ts';

export type ObjectFilter = (object: KubeObject) => boolean;

/** The label and field selectors (and a single name) of a query as one predicate on served objects. */
export function filterOf(resource: Resource, query: URLSearchParams, name?: string): ObjectFilter {
  const labels = parseLabelSelector(query.get('labelSelector') ?? '');
  const fields = parseFieldSelector(query.get('fieldSelector') ?? '');
  const known = Object.keys(selectableFields(resource, emptyObject(resource)));
  for (const { field } of fields) {
    if (!known.includes(field)) {
      throw badRequest(
        `Unable to find "${apiName(resource)}" that match label selector "${query.get('labelSelector') ?? ''}", field selector "${query.get('fieldSelector') ?? ''}": field label not supported: ${field}`,
      );
    }
  }
  return (object) =>
    (name === undefined || object.metadata.name === name) &&
    matchesLabels(labels, object.metadata.labels) &&
    (fields.length === 0 || matchesFields(fields, selectableFields(resource, object)));
}

function emptyObject(resource: Resource): KubeObject {
  return { apiVersion: '', kind: resource.kind, metadata: { name: '' } };
}

function apiName(resource: Resource): string {
  return `${resource.group === '' ? '' : `${resource.group}/`}${resource.version}, Resource=${resource.plural}`;
}

export interface ListPage {
  readonly objects: KubeObject[];
  readonly resourceVersion: string;
  readonly continueToken?: string;
  readonly remaining?: number;
}

interface Token {
  readonly rv: number;
  readonly after: string;
}

export function listObjects(
  store: Store,
  resource: Resource,
  namespace: string | undefined,
  query: URLSearchParams,
): ListPage {
  const token = query.get('continue') ?? '';
  const limit = Number(query.get('limit') ?? 0);
  const from = token === '' ? undefined : decodeToken(token);
  const at = from?.rv ?? exactVersion(store, query);
  const stored =
    at === undefined ? store.list(resource.bucket, namespace) : store.listAt(resource.bucket, at, namespace);
  if (stored === undefined) throw expiredContinue(token);
  const key = (object: KubeObject): string => keyOf(resource, object.metadata.namespace, object.metadata.name);
  const rest = from === undefined ? stored : stored.filter((object) => key(object) > from.after);
  const matching = rest.map((object) => serve(resource, object)).filter(filterOf(resource, query));
  const version = at ?? store.resourceVersion;
  const page: ListPage = { objects: matching, resourceVersion: String(version) };
  if (limit <= 0 || matching.length <= limit) return page;
  const objects = matching.slice(0, limit);
  const last = objects.at(-1);
  const next: Token = { rv: version, after: last === undefined ? '' : key(last) };
  const selecting = query.has('labelSelector') || query.has('fieldSelector');
  return {
    objects,
    resourceVersion: String(version),
    continueToken: Buffer.from(JSON.stringify(next)).toString('base64url'),
    ...(selecting ? {} : { remaining: matching.length - limit }),
  };
}

/** The resourceVersion to read at, if the query asks for exactly one. */
function exactVersion(store: Store, query: URLSearchParams): number | undefined {
  const text = query.get('resourceVersion') ?? '';
  const match = query.get('resourceVersionMatch') ?? '';
  if (match !== '' && text === '')
    throw badRequest('resourceVersionMatch is forbidden unless resourceVersion is provided');
  if (text === '' || text === '0') return undefined;
  const version = parseVersion(text);
  if (version > store.resourceVersion) {
    throw new ApiError(504, 'Timeout', `Too large resource version: ${version}, current: ${store.resourceVersion}`, {
      causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
      retryAfterSeconds: 1,
    });
  }
  return match === 'Exact' ? version : undefined;
}

export function parseVersion(text: string): number {
  if (!/^\d+$/.test(text))
    throw badRequest(`resourceVersion: Invalid value: "${text}": strconv.ParseUint: parsing "${text}": invalid syntax`);
  return Number(text);
}

function decodeToken(text: string): Token {
  try {
    const { rv, after } = JSON.parse(Buffer.from(text, 'base64url').toString('utf8')) as Partial<Token>;
    if (typeof rv === 'number' && typeof after === 'string') return { rv, after };
  } catch {
    // Reported below, like a token of the wrong form.
  }
  throw badRequest(`continue key is not valid: ${text}`);
}

function expiredContinue(token: string): ApiError {
  return expired(
    token === ''
      ? 'The resourceVersion for the provided list is too old.'
      : 'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.',
  );
}
