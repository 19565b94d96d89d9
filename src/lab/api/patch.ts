/** The three patch types a client may send, chosen by Content-Type. */
import { cloneJson, isArray, isObject, setOwn, type Json, type JsonObject } from './json.ts';
import { ApiError, badRequest, unsupportedMediaType } from './status.ts';
import { applyStrategicPatch } from './strategic-patch.ts';

export const patchTypes = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
] as const;
export type PatchType = (typeof patchTypes)[number];

/** At most this many operations in a JSON patch, as in Kubernetes. */
const maxJsonPatchOperations = 10_000;

export function patchTypeOf(contentType: string, strategic: boolean): PatchType {
  const wanted = contentType.split(';')[0]?.trim() ?? '';
  const supported = patchTypes.filter((type) => strategic || type !== 'application/strategic-merge-patch+json');
  const found = supported.find((type) => type === wanted);
  if (found !== undefined) return found;
  if (wanted.startsWith('application/apply-patch')) {
    throw unsupportedMediaType(
      'server-side apply is not offered by this API server: apply without --server-side (the lab keeps no managed fields)',
    );
  }
  throw unsupportedMediaType(
    `the body of the request was in an unknown format - accepted media types include: ${supported.join(', ')}`,
  );
}

/** Applies the patch to a copy. `typeName` is the built-in type, for strategic merge. */
export async function applyPatch(
  type: PatchType,
  typeName: string | undefined,
  original: JsonObject,
  patch: Json,
): Promise<JsonObject> {
  switch (type) {
    case 'application/json-patch+json':
      return applyJsonPatch(original, patch);
    case 'application/merge-patch+json':
      return applyMergePatch(original, objectPatch(patch));
    case 'application/strategic-merge-patch+json':
      if (typeName === undefined) throw unsupportedMediaType('strategic merge patch needs a built-in kind');
      return cloneJson(applyStrategicPatch(typeName, original, objectPatch(patch)));
  }
}

/** RFC 7386. */
export function applyMergePatch(original: JsonObject, patch: JsonObject): JsonObject {
  const result = cloneJson(original);
  for (const [key, value] of Object.entries(patch)) {
    if (value === null || value === undefined) delete result[key];
    else if (isObject(value)) {
      const old = Object.hasOwn(result, key) ? result[key] : undefined;
      setOwn(result, key, applyMergePatch(isObject(old) ? old : {}, value));
    } else setOwn(result, key, cloneJson(value));
  }
  return result;
}

export async function applyJsonPatch(original: JsonObject, patch: Json): Promise<JsonObject> {
  if (!isArray(patch)) throw badRequest('json: cannot unmarshal object into Go value of type jsonpatch.Patch');
  if (patch.length > maxJsonPatchOperations) {
    throw new ApiError(
      413,
      'RequestEntityTooLarge',
      `The allowed maximum operations in a JSON patch is ${maxJsonPatchOperations}, got ${patch.length}`,
    );
  }
  // Loaded on first use: most clients send merge patches.
  const { applyPatch: apply } = (await import('fast-json-patch')).default;
  try {
    const operations = cloneJson(patch) as unknown as Parameters<typeof apply>[1];
    return apply(cloneJson(original), operations, true, false).newDocument;
  } catch (error) {
    const what = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new ApiError(422, 'Invalid', `the server rejected our request due to an error in our request: ${what}`);
  }
}

function objectPatch(patch: Json): JsonObject {
  if (isObject(patch)) return patch;
  throw badRequest('json: cannot unmarshal non-object patch into Go value of type map[string]interface {}');
}
