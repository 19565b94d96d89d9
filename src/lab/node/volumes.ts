/** Volumes of a pod as directories under the kubelet's state, bind-mounted into the containers. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SluiceError } from '../../core/error.ts';
import type { BindMount } from './container.ts';
import type { Container, KubeletApi, Pod, Volume } from './pod-api.ts';

type Data = Readonly<Record<string, Buffer>>;

/** Makes the volumes the container mounts, and says what to mount where. `dir` belongs to the pod. */
export async function prepareMounts(
  pod: Pod,
  container: Container,
  dir: string,
  api: KubeletApi,
): Promise<BindMount[]> {
  const mounts: BindMount[] = [];
  for (const mount of container.volumeMounts ?? []) {
    const volume = pod.spec.volumes?.find((each) => each.name === mount.name);
    if (volume === undefined)
      throw volumeError(pod, mount.name, 'the pod declares no volume of this name', 'add it to spec.volumes');
    const root = await prepareVolume(pod, volume, dir, api);
    const source = mount.subPath === undefined ? root : join(root, mount.subPath);
    if (!existsSync(source)) mkdirSync(source, { recursive: true });
    if (!existsSync(mount.mountPath)) {
      const what = `mountPath ${mount.mountPath} does not exist`;
      throw volumeError(
        pod,
        mount.name,
        what,
        "lab containers see the machine's own file system: mount on a path that exists, as /mnt or /srv",
      );
    }
    mounts.push({ source, target: mount.mountPath, readOnly: mount.readOnly === true });
  }
  return mounts;
}

async function prepareVolume(pod: Pod, volume: Volume, dir: string, api: KubeletApi): Promise<string> {
  if (volume.hostPath !== undefined) return volume.hostPath.path;
  const root = join(dir, volume.name);
  mkdirSync(root, { recursive: true, mode: 0o777 });
  if (volume.emptyDir !== undefined) return root;
  const { namespace } = pod.metadata;
  if (volume.configMap !== undefined) {
    const data = await api.getConfigMap(namespace, volume.configMap.name);
    return writeItems(pod, volume.name, root, data, volume.configMap, `configmap "${volume.configMap.name}"`);
  }
  if (volume.secret !== undefined) {
    const data = await api.getSecret(namespace, volume.secret.secretName);
    return writeItems(pod, volume.name, root, data, volume.secret, `secret "${volume.secret.secretName}"`);
  }
  const kind = Object.keys(volume).find((key) => key !== 'name') ?? 'none';
  throw volumeError(
    pod,
    volume.name,
    `volume kind ${kind} is not supported by the lab`,
    'use emptyDir, configMap, secret or hostPath',
  );
}

function writeItems(
  pod: Pod,
  name: string,
  root: string,
  data: Data | undefined,
  source: { readonly optional?: boolean; readonly items?: readonly { key: string; path: string }[] },
  shown: string,
): string {
  if (data === undefined && source.optional !== true) throw volumeError(pod, name, `${shown} not found`, 'create it');
  const items = source.items ?? Object.keys(data ?? {}).map((key) => ({ key, path: key }));
  for (const { key, path } of items) {
    const bytes = data?.[key];
    if (bytes === undefined) continue;
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, bytes);
  }
  return root;
}

function volumeError(pod: Pod, volume: string, what: string, remedy: string): SluiceError {
  const object = `volume ${volume} of pod ${pod.metadata.namespace}/${pod.metadata.name}`;
  return new SluiceError({ code: 'invalid_resource', operation: 'mount', object, what, remedy });
}
