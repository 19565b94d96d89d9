import type { FieldError } from '../api/field-error.ts';
import { poolSchema, type SpiderIPPool } from '../api/spiderippool.ts';
import { subnetSchema, type SpiderSubnet } from '../api/spidersubnet.ts';
import type { AddressSpec } from '../ipam/pool-addresses.ts';
import { defaultPool } from '../ipam/pool-defaults.ts';
import { validatePoolCreate, validatePoolDelete, validatePoolUpdate } from '../ipam/pool-validation.ts';
import { defaultSubnet } from '../ipam/subnet-defaults.ts';
import { validateSubnetCreate, validateSubnetDelete, validateSubnetUpdate } from '../ipam/subnet-validation.ts';
import { allow, allowChanged, deny, type AdmissionRequest, type AdmissionResponse } from './admission.ts';
import type { AdmissionClaims, Claim, ClaimedVerdict, ClaimKind } from './admission-claims.ts';
import { schemaErrors } from './admission-schema.ts';

/** Admission of SpiderIPPools and SpiderSubnets, which share one space of addresses. */

export interface AddressAdmissionOptions {
  readonly strictSubnet?: boolean | undefined;
  readonly disabledFamilies?: readonly number[] | undefined;
  /** By default on. */
  readonly subnetsEnabled?: boolean | undefined;
  /** enableValidatingResourcesDeletedWebhook; by default off. */
  readonly refuseDeletion?: boolean | undefined;
}

export interface AddressAdmissionDeps {
  /** From the API server, not from a cache. */
  readonly listPools: () => Promise<readonly SpiderIPPool[]>;
  readonly listSubnets: () => Promise<readonly SpiderSubnet[]>;
  readonly claims: AdmissionClaims;
  readonly options?: AddressAdmissionOptions | undefined;
}

interface Existing {
  readonly pools: readonly SpiderIPPool[];
  readonly subnets: readonly SpiderSubnet[];
}

export class AddressAdmission {
  readonly #deps: AddressAdmissionDeps;
  readonly #options: AddressAdmissionOptions;

  constructor(deps: AddressAdmissionDeps) {
    this.#deps = deps;
    this.#options = deps.options ?? {};
  }

  /** Objects that break the schema pass: the API server says more about them, right after the mutation. */
  async mutatePool(request: AdmissionRequest): Promise<AdmissionResponse> {
    const parsed = poolSchema.safeParse(request.object);
    if (!parsed.success || request.operation === 'DELETE') return allow(request);
    const subnets = this.#options.subnetsEnabled === false ? undefined : await this.#deps.listSubnets();
    const { strictSubnet } = this.#options;
    const { object, warnings } = defaultPool(parsed.data, { strictSubnet, subnets });
    return allowChanged(request, request.object as object, object, warnings);
  }

  mutateSubnet(request: AdmissionRequest): AdmissionResponse {
    const parsed = subnetSchema.safeParse(request.object);
    if (!parsed.success || request.operation === 'DELETE') return allow(request);
    const { object, warnings } = defaultSubnet(parsed.data, { strictSubnet: this.#options.strictSubnet });
    return allowChanged(request, request.object as object, object, warnings);
  }

  async validatePool(request: AdmissionRequest): Promise<AdmissionResponse> {
    if (request.operation === 'DELETE') return this.#poolDeletion(request);
    const parsed = poolSchema.safeParse(request.object);
    if (!parsed.success) return deny(request, request.name ?? '', schemaErrors(parsed.error));
    const pool = parsed.data;
    const old = request.operation === 'UPDATE' ? poolSchema.safeParse(request.oldObject).data : undefined;
    const { disabledFamilies, subnetsEnabled } = this.#options;
    return this.#review(request, 'SpiderIPPool', pool, ({ pools, subnets }) => {
      const context = { pools, disabledFamilies, ...(subnetsEnabled === false ? {} : { subnets }) };
      return old === undefined ? validatePoolCreate(pool, context) : validatePoolUpdate(pool, old, context);
    });
  }

  async validateSubnet(request: AdmissionRequest): Promise<AdmissionResponse> {
    if (request.operation === 'DELETE') return this.#subnetDeletion(request);
    const parsed = subnetSchema.safeParse(request.object);
    if (!parsed.success) return deny(request, request.name ?? '', schemaErrors(parsed.error));
    const subnet = parsed.data;
    const old = request.operation === 'UPDATE' ? subnetSchema.safeParse(request.oldObject).data : undefined;
    const { disabledFamilies, subnetsEnabled } = this.#options;
    return this.#review(request, 'SpiderSubnet', subnet, (existing) => {
      const context = { ...existing, disabledFamilies, disabled: subnetsEnabled === false };
      return old === undefined ? validateSubnetCreate(subnet, context) : validateSubnetUpdate(subnet, old, context);
    });
  }

  #review(
    request: AdmissionRequest,
    kind: ClaimKind,
    object: SpiderIPPool | SpiderSubnet,
    validate: (existing: Existing) => FieldError[],
  ): Promise<AdmissionResponse> {
    const name = object.metadata.name ?? request.name ?? '';
    return this.#deps.claims.review(async (claims): Promise<ClaimedVerdict<AdmissionResponse>> => {
      // After the claims, or an object stored in between would be in neither.
      const [pools, subnets] = await Promise.all([this.#deps.listPools(), this.#deps.listSubnets()]);
      const stored = { SpiderIPPool: pools, SpiderSubnet: subnets };
      const isPending = (claim: Claim): boolean => versionOf(stored[claim.kind], claim.name) === claim.base;
      // An object's own claim is the same request tried again.
      const pending = claims.filter((claim) => isPending(claim) && !(claim.kind === kind && claim.name === name));
      const errors = validate({
        pools: [...pools, ...claimed(pending, 'SpiderIPPool')],
        subnets: [...subnets, ...claimed(pending, 'SpiderSubnet')],
      });
      if (errors.length > 0) return { verdict: deny(request, name, errors), isPending };
      if (request.dryRun === true) return { verdict: allow(request), isPending };
      const base = versionOf(stored[kind], name);
      return { verdict: allow(request), claim: { kind, name, spec: addressesOf(object.spec), base }, isPending };
    });
  }

  #poolDeletion(request: AdmissionRequest): AdmissionResponse {
    const pool = this.#options.refuseDeletion === true ? poolSchema.safeParse(request.oldObject).data : undefined;
    const errors = pool === undefined ? [] : validatePoolDelete(pool);
    return errors.length > 0 ? deny(request, request.name ?? '', errors) : allow(request);
  }

  async #subnetDeletion(request: AdmissionRequest): Promise<AdmissionResponse> {
    const subnet = this.#options.refuseDeletion === true ? subnetSchema.safeParse(request.oldObject).data : undefined;
    const errors = subnet === undefined ? [] : validateSubnetDelete(subnet, await this.#deps.listPools());
    return errors.length > 0 ? deny(request, request.name ?? '', errors) : allow(request);
  }
}

function addressesOf({ ipVersion, subnet, ips, excludeIPs }: AddressSpec): AddressSpec {
  return { ipVersion, subnet, ips, excludeIPs };
}

function claimed(
  claims: readonly Claim[],
  kind: ClaimKind,
): { metadata: { name: string }; spec: SpiderIPPool['spec'] }[] {
  return claims
    .filter((claim) => claim.kind === kind)
    .map(({ name, spec }) => ({ metadata: { name }, spec: spec as SpiderIPPool['spec'] }));
}

function versionOf(objects: readonly (SpiderIPPool | SpiderSubnet)[], name: string): string | undefined {
  return objects.find(({ metadata }) => metadata.name === name)?.metadata.resourceVersion;
}
