import { z } from 'zod';
import { objectMetaSchema } from './spider-schema.ts';
import { coordinatorSpecSchema } from './spidermultusconfig.ts';

/** SpiderCoordinator, cluster scoped: what attachments do not say about the coordinator, and the cluster's CIDRs. */

export const coordinatorPhases = ['Synced', 'NotReady'] as const;
export type CoordinatorPhase = (typeof coordinatorPhases)[number];

export const coordinatorStatusSchema = z.looseObject({
  phase: z.enum(coordinatorPhases).optional(),
  /** Why it is NotReady, or what a Synced one does without. */
  reason: z.string().optional(),
  overlayPodCIDR: z.array(z.string()).optional(),
  serviceCIDR: z.array(z.string()).optional(),
});

export const spiderCoordinatorSchema = z.looseObject({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  metadata: objectMetaSchema,
  spec: coordinatorSpecSchema.optional(),
  status: coordinatorStatusSchema.optional(),
});

export type SpiderCoordinatorStatus = z.infer<typeof coordinatorStatusSchema>;
export type SpiderCoordinator = z.infer<typeof spiderCoordinatorSchema>;
