/** The cluster through the Kubernetes API itself, for machines without kubectl. */
import {
  CoreV1Api,
  CustomObjectsApi,
  Exec,
  KubeConfig,
  KubernetesObjectApi,
  loadAllYaml,
  PatchStrategy,
  type KubernetesObject,
  type V1Status,
} from '@kubernetes/client-node';
import { readFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { SluiceError } from '../../core/error.ts';
import type { Cluster, ContainerRef, ExecResult, PodRef, PodView } from './cluster.ts';
import { podView } from './pod-view.ts';

export function apiCluster(kubeconfig: string): Cluster {
  const config = new KubeConfig();
  config.loadFromFile(kubeconfig);
  const objects = KubernetesObjectApi.makeApiClient(config);
  const core = config.makeApiClient(CoreV1Api);
  const custom = config.makeApiClient(CustomObjectsApi);
  return {
    description: 'the API itself (there is no kubectl 1.30 or newer here)',
    apply: (file) => forEachObject(file, (object) => applyObject(objects, object)),
    remove: (file) => forEachObject(file, (object) => removeObject(objects, object)),
    async pods(namespace: string, selector: string): Promise<PodView[]> {
      const list = await core.listNamespacedPod({ namespace, labelSelector: selector });
      return list.items.map((pod) => podView(pod));
    },
    async attachmentConfig(namespace: string, name: string): Promise<string | undefined> {
      const request = {
        group: 'k8s.cni.cncf.io',
        version: 'v1',
        plural: 'network-attachment-definitions',
        namespace,
        name,
      };
      const found: unknown = await orUndefinedWhenMissing(custom.getNamespacedCustomObject(request));
      return (found as { spec?: { config?: string } } | undefined)?.spec?.config;
    },
    async annotate(pod: PodRef, annotations: Readonly<Record<string, string | null>>): Promise<void> {
      const patch = { apiVersion: 'v1', kind: 'Pod', metadata: { ...pod, annotations } } as unknown as KubernetesObject;
      await objects.patch(patch, undefined, undefined, undefined, undefined, PatchStrategy.MergePatch);
    },
    exec: (pod, command, timeoutMs) => execInPod(new Exec(config), pod, command, timeoutMs),
  };
}

async function forEachObject(file: string, act: (object: KubernetesObject) => Promise<string>): Promise<string> {
  const lines: string[] = [];
  for (const object of loadAllYaml(readFileSync(file, 'utf8')) as KubernetesObject[]) {
    lines.push(`${(object.kind ?? '').toLowerCase()}/${object.metadata?.name ?? ''} ${await act(object)}`);
  }
  return `${lines.join('\n')}\n`;
}

async function applyObject(objects: KubernetesObjectApi, object: KubernetesObject): Promise<string> {
  const header = {
    ...object,
    metadata: { name: object.metadata?.name ?? '', namespace: object.metadata?.namespace ?? 'default' },
  };
  if ((await orUndefinedWhenMissing(objects.read(header))) === undefined) {
    await objects.create(object);
    return 'created';
  }
  await objects.patch(object, undefined, undefined, undefined, undefined, PatchStrategy.MergePatch);
  return 'configured';
}

async function removeObject(objects: KubernetesObjectApi, object: KubernetesObject): Promise<string> {
  return (await orUndefinedWhenMissing(objects.delete(object))) === undefined ? 'not found' : 'deleted';
}

async function orUndefinedWhenMissing<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if ((error as { code?: unknown }).code === 404) return undefined;
    throw error;
  }
}

class TextSink extends Writable {
  text = '';

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('utf8');
    done();
  }
}

async function execInPod(
  exec: Exec,
  pod: ContainerRef,
  command: readonly string[],
  timeoutMs: number,
): Promise<ExecResult> {
  const stdout = new TextSink();
  const stderr = new TextSink();
  const status = await new Promise<V1Status>((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(
        new SluiceError({
          code: 'timeout',
          operation: 'run a command in pod',
          object: `${pod.namespace}/${pod.name}`,
          what: `no answer within ${timeoutMs} ms`,
        }),
      );
    }, timeoutMs);
    const settle = (result: V1Status): void => {
      clearTimeout(timer);
      resolve(result);
    };
    exec
      .exec(pod.namespace, pod.name, pod.container ?? '', [...command], stdout, stderr, null, false, settle)
      .catch((error: unknown) => {
        clearTimeout(timer);
        reject(error instanceof Error ? error : new Error(String(error)));
      });
  });
  const cause = status.details?.causes?.find((each) => each.reason === 'ExitCode')?.message;
  const exitCode = status.status === 'Success' ? 0 : Number(cause ?? 1);
  return { exitCode, stdout: stdout.text, stderr: stderr.text };
}
