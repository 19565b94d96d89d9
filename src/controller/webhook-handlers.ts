import { AddressAdmission, type AddressAdmissionDeps } from './admission-addresses.ts';
import { admitCoordinator, mutateCoordinator } from './admission-coordinator.ts';
import { admitMultusConfig, mutateMultusConfig, type AttachmentReader } from './admission-multus.ts';
import { admitReservedIp, mutateReservedIp } from './admission-reserved-ip.ts';
import type { WebhookHandlers } from './webhook-server.ts';

export interface WebhookHandlerDeps extends AddressAdmissionDeps {
  readonly readAttachment: AttachmentReader;
}

/** Which function reviews what. */
export function webhookHandlers(deps: WebhookHandlerDeps): WebhookHandlers {
  const addresses = new AddressAdmission(deps);
  return {
    mutatePool: (request) => addresses.mutatePool(request),
    validatePool: (request) => addresses.validatePool(request),
    mutateSubnet: (request) => addresses.mutateSubnet(request),
    validateSubnet: (request) => addresses.validateSubnet(request),
    mutateReservedIp,
    validateReservedIp: (request) => admitReservedIp(request, deps.options?.disabledFamilies),
    mutateCoordinator,
    validateCoordinator: admitCoordinator,
    mutateMultusConfig,
    validateMultusConfig: (request) => admitMultusConfig(request, deps.readAttachment),
  };
}
