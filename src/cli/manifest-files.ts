/** Kubernetes objects in files: YAML or JSON, several documents, lists, directories, "-" for standard input. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { LineCounter, parseAllDocuments } from 'yaml';
import type { KubeObject } from '../api/kubernetes.ts';
import { SluiceError } from '../core/error.ts';
import type { SourceObject } from '../policy/lint-world.ts';

export interface FileFault {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

export interface Manifests {
  readonly objects: readonly SourceObject[];
  /** Documents that are no YAML, or no object. */
  readonly faults: readonly FileFault[];
}

/** Throws not_found for a file that cannot be read. */
export function readManifests(paths: readonly string[]): Manifests {
  const parsed = paths.flatMap(filesOf).map((file) => parseManifests(file, readText(file)));
  return { objects: parsed.flatMap(({ objects }) => objects), faults: parsed.flatMap(({ faults }) => faults) };
}

export function parseManifests(file: string, text: string): Manifests {
  const lines = new LineCounter();
  const objects: SourceObject[] = [];
  const faults: FileFault[] = [];
  // With an empty text it answers with the empty list and a mark.
  for (const document of [...parseAllDocuments(text, { lineCounter: lines })]) {
    const [error] = document.errors;
    if (error !== undefined) {
      faults.push({ file, line: lines.linePos(error.pos[0]).line, message: error.message.split('\n')[0] ?? '' });
      continue;
    }
    const line = lines.linePos(document.contents?.range?.[0] ?? 0).line;
    const value: unknown = document.toJS();
    if (value === null || value === undefined) continue;
    if (isObject(value)) objects.push(...expand(value).map((object) => ({ file, line, object })));
    else faults.push({ file, line, message: 'the document has no "kind": it is no Kubernetes object' });
  }
  return { objects, faults };
}

/** "kind: List", as kubectl writes it. */
function expand(object: KubeObject): readonly KubeObject[] {
  const { items } = object as { readonly items?: unknown };
  return (object.kind ?? '').endsWith('List') && Array.isArray(items) ? (items as KubeObject[]) : [object];
}

function isObject(value: unknown): value is KubeObject {
  return typeof value === 'object' && value !== null && typeof (value as { kind?: unknown }).kind === 'string';
}

function filesOf(path: string): string[] {
  if (path === '-') return [path];
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return [path];
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' }).sort();
  return names.filter((name) => /\.(ya?ml|json)$/.test(name)).map((name) => join(path, name));
}

function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    throw new SluiceError({
      ...{ code: 'not_found', operation: 'read', object: file, what: 'it cannot be read', cause },
      remedy: 'name YAML or JSON files, directories of them, or - for standard input',
    });
  }
}
