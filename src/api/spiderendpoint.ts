import { z } from 'zod';
import { poolRouteSchema } from './spiderippool.ts';
import { objectMetaSchema } from './spider-schema.ts';

/**
 * SpiderEndpoint, namespaced: the addresses of the pod of the same name, by interface. The agents write it. `status`
 * is an ordinary field of it: there is no status subresource.
 */

export const endpointInterfaceSchema = z.looseObject({
  interface: z.string(),
  /** address/prefix length */
  ipv4: z.string().optional(),
  ipv6: z.string().optional(),
  ipv4Pool: z.string().optional(),
  ipv6Pool: z.string().optional(),
  vlan: z.number().int().optional(),
  ipv4Gateway: z.string().optional(),
  ipv6Gateway: z.string().optional(),
  /** Whether the default route was left out. */
  cleanGateway: z.boolean().optional(),
  routes: z.array(poolRouteSchema).optional(),
  mac: z.string().optional(),
});

export const endpointStatusSchema = z.looseObject({
  current: z.looseObject({
    /** Of the pod. */
    uid: z.string(),
    node: z.string(),
    ips: z.array(endpointInterfaceSchema),
  }),
  /** Kind of the workload at the top of the pod's owners; "Pod" when there is none. */
  ownerControllerType: z.string(),
  ownerControllerName: z.string(),
});

export const spiderEndpointSchema = z.looseObject({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  metadata: objectMetaSchema,
  status: endpointStatusSchema.optional(),
});

export type EndpointInterface = z.infer<typeof endpointInterfaceSchema>;
export type SpiderEndpointStatus = z.infer<typeof endpointStatusSchema>;
export type SpiderEndpoint = z.infer<typeof spiderEndpointSchema>;
