/** A contract case: one sentence that must hold of any Kubernetes API server. */
import type { JsonObject } from '../api/json.ts';
import type { ContractClient } from './client.ts';

export interface ContractCase {
  readonly name: string;
  readonly run: (client: ContractClient) => Promise<void>;
  /** Needs controllers that a bare kube-apiserver does not run (garbage collector, namespace controller). */
  readonly controllers?: boolean;
}

export function configMap(
  name: string,
  data: Record<string, string> = {},
  labels: Record<string, string> = {},
): JsonObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels }, data };
}

export function pod(name: string, labels: Record<string, string> = {}): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels },
    spec: { containers: [{ name: 'main', image: 'example/main:1', ports: [{ containerPort: 80 }] }] },
  };
}

export function deployment(name: string): JsonObject {
  const labels = { app: name };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, labels },
    spec: {
      replicas: 2,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'main', image: 'example/main:1' }] } },
    },
  };
}
