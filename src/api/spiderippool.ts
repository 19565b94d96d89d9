import { z } from 'zod';
import { objectMetaSchema, labelSelectorSchema } from './spider-schema.ts';

/** SpiderIPPool, cluster scoped: a set of addresses of one subnet, and who may draw from it. */

export const poolRouteSchema = z.looseObject({ dst: z.string(), gw: z.string() });

export const poolSpecSchema = z.looseObject({
  ipVersion: z.number().int().optional(),
  subnet: z.string(),
  ips: z.array(z.string()).optional(),
  excludeIPs: z.array(z.string()).optional(),
  gateway: z.string().optional(),
  routes: z.array(poolRouteSchema).optional(),
  podAffinity: labelSelectorSchema.optional(),
  namespaceAffinity: labelSelectorSchema.optional(),
  namespaceName: z.array(z.string()).optional(),
  nodeAffinity: labelSelectorSchema.optional(),
  nodeName: z.array(z.string()).optional(),
  multusName: z.array(z.string()).optional(),
  default: z.boolean().optional(),
  disable: z.boolean().optional(),
});

export const poolStatusSchema = z.looseObject({
  /** A JSON document in a string; src/ipam/allocated-ips.ts. */
  allocatedIPs: z.string().optional(),
  totalIPCount: z.number().int().optional(),
  allocatedIPCount: z.number().int().optional(),
});

export const poolSchema = z.looseObject({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  metadata: objectMetaSchema,
  spec: poolSpecSchema,
  status: poolStatusSchema.optional(),
});

export type PoolRoute = z.infer<typeof poolRouteSchema>;
export type PoolSpec = z.infer<typeof poolSpecSchema>;
export type PoolStatus = z.infer<typeof poolStatusSchema>;
export type SpiderIPPool = z.infer<typeof poolSchema>;
