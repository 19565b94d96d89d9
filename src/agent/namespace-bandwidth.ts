/** Default limits of a namespace's pods: the bandwidth annotations on the Namespace. */
import type { Namespace } from '../api/kubernetes.ts';
import { namespaces } from '../api/resources.ts';
import { referenceTo, type EventNote } from '../kube/event-recorder.ts';
import { bandwidthAnnotations, bandwidthDirections, parseRate, rateRemedy } from './bandwidth-rate.ts';
import type { NamespaceDefaults } from './bandwidth-sources.ts';

interface NamespaceSource {
  get(namespace: undefined, name: string): Namespace | undefined;
  on(event: 'add', handler: (object: Namespace) => void): this;
  on(event: 'update', handler: (object: Namespace, old: Namespace) => void): this;
}

export interface NamespaceBandwidthDeps {
  readonly namespaces: NamespaceSource;
  readonly record: (note: EventNote) => void;
}

export class NamespaceBandwidth {
  readonly #namespaces: NamespaceSource;

  /** Registers with the informer, so it must be made before that starts. */
  constructor({ namespaces: source, record }: NamespaceBandwidthDeps) {
    this.#namespaces = source;
    source.on('add', (namespace) => notesOn(namespace).forEach(record));
    source.on('update', (namespace, old) => {
      const known = new Set(notesOn(old).map(({ message }) => message));
      notesOn(namespace)
        .filter(({ message }) => !known.has(message))
        .forEach(record);
    });
  }

  of(namespace: string): NamespaceDefaults {
    const annotations = this.#namespaces.get(undefined, namespace)?.metadata?.annotations;
    const defaults = bandwidthDirections.flatMap((direction) => {
      const text = annotations?.[bandwidthAnnotations[direction]];
      return text === undefined ? [] : [[direction, parseRate(text).bps ?? 'malformed'] as const];
    });
    return Object.fromEntries(defaults);
  }
}

function notesOn(namespace: Namespace): EventNote[] {
  return bandwidthDirections.flatMap((direction) => {
    const annotation = bandwidthAnnotations[direction];
    const text = namespace.metadata?.annotations?.[annotation];
    const problem = text === undefined ? undefined : parseRate(text).problem;
    if (problem === undefined) return [];
    const inForce = `pods start without a default for ${direction}, and running pods keep the default they have`;
    const message = `metadata.annotations[${annotation}]: ${problem}; ${inForce}; ${rateRemedy}`;
    const about = referenceTo(namespaces, namespace);
    return [{ about, type: 'Warning', reason: 'InvalidBandwidth', message, shared: true }];
  });
}
