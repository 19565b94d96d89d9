import { z } from 'zod';
import { poolRouteSchema } from './spiderippool.ts';
import { objectMetaSchema } from './spider-schema.ts';

/** SpiderSubnet, cluster scoped: a set of addresses of one subnet that pools are cut from, by hand or for an application. */

export const subnetSpecSchema = z.looseObject({
  ipVersion: z.number().int().optional(),
  subnet: z.string(),
  ips: z.array(z.string()).optional(),
  excludeIPs: z.array(z.string()).optional(),
  gateway: z.string().optional(),
  routes: z.array(poolRouteSchema).optional(),
});

export const subnetStatusSchema = z.looseObject({
  /** A JSON document in a string; src/ipam/subnet-pools.ts. */
  controlledIPPools: z.string().optional(),
  totalIPCount: z.number().int().optional(),
  /** Addresses that pools have, whether pods use them or not. */
  allocatedIPCount: z.number().int().optional(),
});

export const subnetSchema = z.looseObject({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  metadata: objectMetaSchema,
  spec: subnetSpecSchema,
  status: subnetStatusSchema.optional(),
});

export type SubnetSpec = z.infer<typeof subnetSpecSchema>;
export type SubnetStatus = z.infer<typeof subnetStatusSchema>;
export type SpiderSubnet = z.infer<typeof subnetSchema>;
