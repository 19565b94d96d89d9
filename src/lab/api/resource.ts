/** What the server knows of one served resource, built in or defined by a CustomResourceDefinition. */
import type { Json, JsonObject, KubeObject } from './json.ts';
import type { Decoded } from './schema/decode.ts';
import type { FieldError } from './status.ts';
import type { Store } from './store.ts';

export interface Column {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'date';
  readonly format?: string;
  readonly description?: string;
  /** 0 always shown, 1 only with -o wide. */
  readonly priority: number;
}

export interface WriteContext {
  readonly store: Store;
  readonly nowMs: number;
  /** "status" and so on; empty for the resource itself. */
  readonly subresource: string;
}

/** What distinguishes a kind; every member is optional and has the ordinary behaviour as its default. */
export interface Behaviour {
  readonly columns?: readonly Column[];
  /** One cell per column. */
  readonly cells?: (object: KubeObject, nowMs: number) => Json[];
  /** Fields beyond metadata.name and metadata.namespace that a field selector may name. */
  readonly selectable?: (object: KubeObject) => Record<string, string>;
  readonly nameRule?: (name: string) => string[];
  /** Fills defaults in; the object is the caller's own. */
  readonly defaults?: (object: KubeObject) => void;
  readonly prepareCreate?: (object: KubeObject, context: WriteContext) => void;
  readonly prepareUpdate?: (object: KubeObject, old: KubeObject, context: WriteContext) => void;
  readonly validate?: (object: KubeObject, old: KubeObject | undefined) => FieldError[];
  readonly warnings?: (object: KubeObject) => string[];
  /** Seconds a deletion waits for somebody to finish it (kubelet); 0 or absent deletes at once. */
  readonly gracePeriodSeconds?: (object: KubeObject, requested: number | undefined) => number;
  /** metadata.generation counts changes outside metadata and status. */
  readonly generation?: boolean;
}

export interface ScalePaths {
  readonly specReplicas: readonly string[];
  readonly statusReplicas: readonly string[];
  /** Path of a label selector (an object or its text form), if any. */
  readonly selector?: readonly string[];
}

export interface Resource {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly singular: string;
  readonly kind: string;
  readonly listKind: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  /** "group/plural" of where its objects are stored. */
  readonly bucket: string;
  readonly hasStatus: boolean;
  readonly scale?: ScalePaths | undefined;
  /** Names of connect-like subresources, for discovery: "exec", "log", … with the kind they speak. */
  readonly connects: Readonly<Record<string, string>>;
  readonly verbs: readonly string[];
  /** Name in the table of built-in types; absent for custom resources. */
  readonly typeName?: string | undefined;
  /** OpenAPI v3 schema of a custom resource. */
  readonly schema?: JsonObject | undefined;
  readonly behaviour: Behaviour;
  readonly decode: (object: JsonObject) => Decoded;
  /** Between the stored form and this version's; identity when absent. */
  readonly toServed?: (stored: KubeObject) => KubeObject;
  readonly toStored?: (served: KubeObject) => KubeObject;
  readonly deprecationWarning?: string | undefined;
}

export function apiVersionOf(resource: { readonly group: string; readonly version: string }): string {
  return resource.group === '' ? resource.version : `${resource.group}/${resource.version}`;
}

export function keyOf(resource: Resource, namespace: string | undefined, name: string): string {
  return resource.namespaced ? `${namespace ?? ''}/${name}` : name;
}

export const allVerbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'] as const;

export function selectableFields(resource: Resource, object: KubeObject): Record<string, string> {
  return {
    'metadata.name': object.metadata.name,
    'metadata.namespace': object.metadata.namespace ?? '',
    ...resource.behaviour.selectable?.(object),
  };
}
