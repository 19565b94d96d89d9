/** What the compiler has to say about a policy. It never throws: one bad rule must not stop the good ones. */

export type DiagnosticCode =
  | 'invalid_cidr'
  | 'except_outside_cidr'
  | 'empty_ip_block'
  | 'invalid_peer'
  | 'invalid_selector'
  | 'unknown_protocol'
  | 'invalid_port'
  | 'invalid_end_port'
  | 'unknown_policy_type'
  | 'named_port_unresolved';

export interface Diagnostic {
  readonly code: DiagnosticCode;
  /** An error makes the rule (or, for its selector, the policy) allow nothing; a warning is about no traffic at all. */
  readonly severity: 'error' | 'warning';
  readonly namespace: string;
  readonly policy: string;
  /** Path in the object: "spec.ingress[0].from[1].ipBlock.cidr". */
  readonly field: string;
  /** What is wrong and what is done instead. */
  readonly message: string;
  readonly remedy: string;
}

/** "NetworkPolicy demo/web, spec.ingress[0]…: message; remedy" */
export function formatDiagnostic(diagnostic: Diagnostic): string {
  const { namespace, policy, field, message, remedy } = diagnostic;
  return `NetworkPolicy ${namespace}/${policy}, ${field}: ${message}; ${remedy}`;
}

/** Collects the diagnostics of one policy. */
export class DiagnosticSink {
  readonly diagnostics: Diagnostic[] = [];
  readonly #namespace: string;
  readonly #policy: string;

  constructor(namespace: string, policy: string) {
    this.#namespace = namespace;
    this.#policy = policy;
  }

  error(code: DiagnosticCode, field: string, message: string, remedy: string): void {
    this.#add('error', code, field, message, remedy);
  }

  warning(code: DiagnosticCode, field: string, message: string, remedy: string): void {
    this.#add('warning', code, field, message, remedy);
  }

  get errorCount(): number {
    return this.diagnostics.filter(({ severity }) => severity === 'error').length;
  }

  #add(severity: Diagnostic['severity'], code: DiagnosticCode, field: string, message: string, remedy: string): void {
    this.diagnostics.push(
      Object.freeze({ code, severity, namespace: this.#namespace, policy: this.#policy, field, message, remedy }),
    );
  }
}
