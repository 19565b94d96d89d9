import { z } from 'zod';
import { objectMetaSchema } from './spider-schema.ts';

/** SpiderReservedIP, cluster scoped: addresses that are never handed out, whichever pool has them. It has no status. */

export const reservedIpSpecSchema = z.looseObject({
  ipVersion: z.number().int().optional(),
  ips: z.array(z.string()).optional(),
});

export const reservedIpSchema = z.looseObject({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  metadata: objectMetaSchema,
  spec: reservedIpSpecSchema,
});

export type ReservedIpSpec = z.infer<typeof reservedIpSpecSchema>;
export type SpiderReservedIP = z.infer<typeof reservedIpSchema>;
