/** Whether an object has the shape of a NetworkPolicy: what the API server's decoder and `kubectl --validate` refuse. */

import { z } from 'zod';
import type { KubeObject } from '../api/kubernetes.ts';

const selector = z.strictObject({
  matchLabels: z.record(z.string(), z.string()).nullish(),
  matchExpressions: z
    .array(z.strictObject({ key: z.string().min(1), operator: z.string(), values: z.array(z.string()).nullish() }))
    .nullish(),
});

const peer = z.strictObject({
  podSelector: selector.nullish(),
  namespaceSelector: selector.nullish(),
  ipBlock: z.strictObject({ cidr: z.string(), except: z.array(z.string()).nullish() }).nullish(),
});

const port = z.strictObject({
  protocol: z.string().nullish(),
  port: z.union([z.number().int(), z.string()]).nullish(),
  endPort: z.number().int().nullish(),
});

const ports = z.array(port).nullish();
const peers = z.array(peer).nullish();

const policySchema = z.object({
  apiVersion: z.literal('networking.k8s.io/v1'),
  kind: z.literal('NetworkPolicy'),
  metadata: z.looseObject({
    name: z.string().regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be lower case letters, digits, "-" and "."'),
    namespace: z.string().nullish(),
    labels: z.record(z.string(), z.string()).nullish(),
    annotations: z.record(z.string(), z.string()).nullish(),
  }),
  spec: z
    .strictObject({
      podSelector: selector.nullish(),
      policyTypes: z.array(z.string()).nullish(),
      ingress: z.array(z.strictObject({ from: peers, ports })).nullish(),
      egress: z.array(z.strictObject({ to: peers, ports })).nullish(),
    })
    .nullish(),
});

export interface SchemaFault {
  /** "spec.ingress[0].from[1]" */
  readonly field: string;
  readonly message: string;
}

export function schemaFaults(object: KubeObject): SchemaFault[] {
  const result = policySchema.safeParse(object);
  if (result.success) return [];
  return result.error.issues.map((issue) => ({ field: fieldText(issue.path), message: messageOf(issue) }));
}

function messageOf(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'unrecognized_keys') return issue.message;
  const names = issue.keys.map((key) => `"${key}"`).join(', ');
  return `unknown field ${names}; the API server refuses it, or ignores it without --validate`;
}

function fieldText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    return text === '' ? String(part) : `${text}.${String(part)}`;
  }, '');
}
