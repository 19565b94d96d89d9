/** Request paths: /api/v1/… and /apis/GROUP/VERSION/…, with or without a namespace, a name and a subresource. */
export interface ResourcePath {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string;
  /** The old form /api/v1/watch/…. */
  readonly watch: boolean;
}

export function parseResourcePath(pathname: string): ResourcePath | undefined {
  const parts = pathname
    .split('/')
    .filter((part) => part !== '')
    .map(decode);
  const core = parts[0] === 'api';
  if (!core && parts[0] !== 'apis') return undefined;
  const [group, version, ...tail] = core ? ['', ...parts.slice(1)] : parts.slice(1);
  if (group === undefined || version === undefined) return undefined;
  const watch = tail[0] === 'watch';
  const rest = watch ? tail.slice(1) : tail;
  // "namespaces/NAME/status" is the namespace itself, "namespaces/NAME/pods" what it holds.
  const inNamespace =
    rest[0] === 'namespaces' && rest.length > 2 && !(core && namespaceSubresources.has(rest[2] ?? ''));
  const [plural, name, ...sub] = inNamespace ? rest.slice(2) : rest;
  if (plural === undefined) return undefined;
  return {
    group,
    version,
    plural,
    namespace: inNamespace ? rest[1] : undefined,
    name,
    subresource: sub.join('/'),
    watch,
  };
}

const namespaceSubresources = new Set(['status', 'finalize']);

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
