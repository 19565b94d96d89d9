import { z } from 'zod';
import type { ConfigMap } from '../api/kubernetes.ts';
import { configMaps } from '../api/resources.ts';
import { SluiceError } from '../core/error.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import type { Claim, ClaimStore } from './admission-claims.ts';

/** The claims of all controllers in one ConfigMap. */

export const claimsName = 'sluice-admission-claims';

/** A ConfigMap holds 1 MiB; claims live for seconds, so this is some thousand pools in that time. */
export const maxClaimsBytes = 512 * 1024;

const key = 'claims';

const claimsSchema = z.array(
  z.object({
    kind: z.enum(['SpiderIPPool', 'SpiderSubnet']),
    name: z.string(),
    spec: z.looseObject({
      ipVersion: z.number().optional(),
      subnet: z.string(),
      ips: z.array(z.string()).optional(),
      excludeIPs: z.array(z.string()).optional(),
    }),
    base: z.string().optional(),
    untilMs: z.number(),
  }),
);

export function configMapClaims(client: KubeClient, namespace: string): ClaimStore {
  return {
    read: async () => {
      const map = await unlessNotFound(client.get<ConfigMap>(configMaps, { namespace, name: claimsName }));
      return { claims: parseClaims(map?.data?.[key]), version: map?.metadata?.resourceVersion };
    },
    write: async (claims, version) => {
      const metadata = { namespace, name: claimsName };
      const data = { [key]: serialize(claims) };
      if (version === undefined) await client.create<ConfigMap>(configMaps, { metadata, data });
      else await client.replace<ConfigMap>(configMaps, { metadata: { ...metadata, resourceVersion: version }, data });
    },
  };
}

/** Damaged claims are dropped: they would run out in seconds anyway, and refusing every pool for ever is worse. */
function parseClaims(text: string | undefined): Claim[] {
  try {
    return claimsSchema.parse(JSON.parse(text ?? '[]'));
  } catch {
    return [];
  }
}

function serialize(claims: readonly Claim[]): string {
  const text = JSON.stringify(claims);
  if (text.length <= maxClaimsBytes) return text;
  throw new SluiceError({
    code: 'limit_exceeded',
    operation: 'admit',
    object: 'pool or subnet',
    what: `more than ${maxClaimsBytes} bytes of pools and subnets were written within 10 seconds`,
    remedy: 'try again in 10 seconds, or write less of them at once',
  });
}
