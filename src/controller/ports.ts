/** What the reconcilers need of the API server; src/controller/kube-access.ts fills it from the client and its informers. */

export interface ObjectAccess<T> {
  /** Everything the informer has. */
  cached(): readonly T[];
  /** From the API server; undefined when it is not there. Namespace is '' for cluster-scoped kinds. */
  read(namespace: string, name: string): Promise<T | undefined>;
  list(): Promise<readonly T[]>;
  create(object: T): Promise<T>;
  /** Rejects with kube_conflict when the resourceVersion is not the newest. */
  replace(object: T): Promise<T>;
  replaceStatus(object: T): Promise<T>;
}

export type EventType = 'Normal' | 'Warning';

/** Writes a Kubernetes Event about the object; equal ones are counted and not repeated. Never throws. */
export type EventWriter = (object: object, type: EventType, reason: string, message: string) => void;
