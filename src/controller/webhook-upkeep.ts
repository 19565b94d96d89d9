import type { Clock } from '../core/clock.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { Settings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Admission } from './admission-server.ts';
import { registerWebhooks } from './register.ts';
import type { WebhookAddress } from './webhook-registration.ts';

/**
 * Every controller shows the certificate that is in the Secret; the one that leads also keeps the registration, which
 * somebody may edit or delete, and renews the authority.
 */

const checkMs = 60_000;

export interface WebhookUpkeepParts {
  readonly admission: Pick<Admission, 'refresh' | 'certificates'>;
  readonly client: KubeClient;
  readonly address: WebhookAddress;
  readonly settings: Pick<Settings, 'enableValidatingResourcesDeletedWebhook'>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class WebhookUpkeep {
  readonly #parts: WebhookUpkeepParts;
  #leads = false;

  constructor(parts: WebhookUpkeepParts) {
    this.#parts = parts;
  }

  /** This controller leads from now on. Resolves when the API server knows the webhooks. */
  async lead(): Promise<void> {
    this.#leads = true;
    await this.check();
  }

  async check(): Promise<void> {
    const { admission } = this.#parts;
    if (!this.#leads) return admission.refresh();
    await admission.refresh((caPem) => this.#register(caPem));
    await this.#register(admission.certificates.current.caPem);
  }

  /** Resolves when the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    while (!signal.aborted) {
      await clock.sleep(checkMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await this.check();
      } catch (error) {
        log.warn({ error: formatErrorChain(error) }, 'webhooks not looked after, trying again');
      }
    }
  }

  #register(caPem: string): Promise<void> {
    const { client, address, settings } = this.#parts;
    return registerWebhooks(client, address, caPem, settings.enableValidatingResourcesDeletedWebhook);
  }
}
