import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { Settings } from '../ipam/settings.ts';
import type { KubeConfig } from '../kube/config.ts';

/** Of leases, claims and certificates, when none is given. */
export const defaultNamespace = 'kube-system';

export interface ControllerOptions {
  readonly kubeConfig: KubeConfig;
  readonly webhook: {
    /** Where to listen; port 0 takes a free one. */
    readonly host: string;
    readonly port: number;
    /** "host:port" by which the API server reaches it; by default where it listens. */
    readonly url?: string | undefined;
    /** Instead of a URL, in a cluster: the Service in front of this controller. */
    readonly service?: { readonly namespace: string; readonly name: string; readonly port: number } | undefined;
    /** The user's: tls.crt, tls.key and ca.crt. Without it the controllers make and share one. */
    readonly secret?: { readonly namespace: string; readonly name: string } | undefined;
  };
  /** Of /healthz and /readyz; port 0 takes a free one. */
  readonly healthPort: number;
  readonly healthHost?: string | undefined;
  /** Where the lease lives. */
  readonly namespace?: string | undefined;
  /** Refuse pools whose subnet has host bits, as Spiderpool does, instead of clearing them with a warning. */
  readonly strictSubnet?: boolean | undefined;
  /** By default those of an empty conf.yml. */
  readonly settings?: Settings | undefined;
  readonly log: Logger;
  /** Aborted: stop in order. */
  readonly signal: AbortSignal;
  readonly clock?: Clock | undefined;
}
