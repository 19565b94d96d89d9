/** Audit mode of namespaces: the annotation sluice.io/policy-audit. */
import { policyAuditAnnotation } from '../api/agent-api.ts';
import type { Namespace } from '../api/kubernetes.ts';
import { namespaces } from '../api/resources.ts';
import { referenceTo, type EventNote } from '../kube/event-recorder.ts';

interface NamespaceSource {
  get(namespace: undefined, name: string): Namespace | undefined;
  on(event: 'add', handler: (object: Namespace) => void): this;
  on(event: 'update', handler: (object: Namespace, old: Namespace) => void): this;
}

export interface PolicyAuditDeps {
  readonly namespaces: NamespaceSource;
  readonly record: (note: EventNote) => void;
  /** A namespace's mode has changed. */
  readonly onChange: () => void;
}

export class PolicyAudit {
  readonly #namespaces: NamespaceSource;

  /** Registers with the informer, so it must be made before that starts. */
  constructor({ namespaces: source, record, onChange }: PolicyAuditDeps) {
    this.#namespaces = source;
    const check = (namespace: Namespace): void => {
      const note = noteOn(namespace);
      if (note !== undefined) record(note);
    };
    source.on('add', check);
    source.on('update', (namespace, old) => {
      if (valueOf(namespace) === valueOf(old)) return;
      check(namespace);
      onChange();
    });
  }

  /** A value that is neither "true" nor "false" audits nothing: it must not open what a policy closes. */
  audited(namespace: string): boolean {
    return valueOf(this.#namespaces.get(undefined, namespace)) === 'true';
  }
}

function valueOf(namespace: Namespace | undefined): string | undefined {
  return namespace?.metadata?.annotations?.[policyAuditAnnotation];
}

function noteOn(namespace: Namespace): EventNote | undefined {
  const value = valueOf(namespace);
  if (value === undefined || value === 'true' || value === 'false') return undefined;
  const what = `annotation ${policyAuditAnnotation}: "${value}" is neither "true" nor "false"`;
  const message = `${what}; policy is enforced; write "true" to let through and report what it would drop`;
  const about = referenceTo(namespaces, namespace);
  return { about, type: 'Warning', reason: 'InvalidPolicyAudit', message, shared: true };
}
