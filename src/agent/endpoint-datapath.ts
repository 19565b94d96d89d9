/** The datapath seen from endpoint records: what to attach where, what to take away, what is missing. */
import { hasErrorCode } from '../core/error.ts';
import type { EndpointRecord } from './endpoint-store.ts';

/** The part of src/datapath's Datapath that endpoints need. */
export interface EndpointHooks {
  attach(target: { endpointId: number; netns: string; interfaceName: string }): void;
  detachEndpoint(endpointId: number): void;
  checkEndpoint(
    endpointId: number,
    netns: string,
    interfaceName: string,
  ): readonly { readonly problem: string; readonly message: string }[];
  endpoints(): readonly { readonly endpointId: number }[];
}

export class EndpointDatapath {
  readonly #hooks: EndpointHooks;

  constructor(hooks: EndpointHooks) {
    this.#hooks = hooks;
  }

  endpointIds(): number[] {
    return this.#hooks.endpoints().map((endpoint) => endpoint.endpointId);
  }

  attach(record: EndpointRecord, interfaceName: string): void {
    this.#hooks.attach({ endpointId: record.endpointId, netns: record.netns, interfaceName });
  }

  detach(record: EndpointRecord): void {
    try {
      this.#hooks.detachEndpoint(record.endpointId);
    } catch (error) {
      if (!hasErrorCode(error, 'not_found')) throw error;
    }
  }

  /** Sentences, one for each hook or program that is missing or not ours. */
  check(record: EndpointRecord): string[] {
    return record.interfaces.flatMap((interfaceName) =>
      this.#hooks
        .checkEndpoint(record.endpointId, record.netns, interfaceName)
        .map((finding) => `${interfaceName}: ${finding.message}`),
    );
  }

  /** Puts missing hooks back; the kernel still holds the endpoint's policy. Answers what was missing. */
  repair(record: EndpointRecord): string[] {
    const findings: string[] = [];
    for (const interfaceName of record.interfaces) {
      // An ADD that is under way has hooks and no policy yet; giving it one is the policy reconciler's work.
      const found = this.#hooks
        .checkEndpoint(record.endpointId, record.netns, interfaceName)
        .filter((finding) => finding.problem !== 'not_programmed');
      if (found.length === 0) continue;
      findings.push(...found.map((finding) => `${interfaceName}: ${finding.message}`));
      this.attach(record, interfaceName);
    }
    return findings;
  }
}
