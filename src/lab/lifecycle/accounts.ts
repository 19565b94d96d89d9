/** The lab's agents and controller run under the accounts of deploy/rbac.yaml, as on a cluster: what is missing there fails here. */
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import type { KubeObject } from '../../api/kubernetes.ts';
import {
  clusterRoleBindings,
  clusterRoles,
  roleBindings,
  roles,
  serviceAccounts,
  type GroupVersionResource,
} from '../../api/resources.ts';
import { accountGroups, accountUser } from '../../api/service-account.ts';
import { packageRoot } from '../../kernel/package-root.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists } from '../../kube/error.ts';
import type { Credentials } from '../api/credentials.ts';
import type { ApiToken } from '../api/server.ts';

const accounts = ['sluice-agent', 'sluice-controller'] as const;
const namespace = 'kube-system';
const kinds: readonly GroupVersionResource[] = [
  serviceAccounts,
  clusterRoles,
  clusterRoleBindings,
  roles,
  roleBindings,
];

/** As long as the lab lives the same, as the token that they are made from. */
export function accountToken({ token }: Credentials, account: (typeof accounts)[number]): string {
  return createHmac('sha256', token).update(account).digest('hex');
}

export function accountTokens(credentials: Credentials): ApiToken[] {
  return accounts.map((account) => ({
    token: accountToken(credentials, account),
    user: accountUser(namespace, account),
    groups: accountGroups(namespace),
  }));
}

/** Makes them, or makes them what the file says now. */
export async function applyAccounts(client: KubeClient): Promise<void> {
  const text = readFileSync(join(packageRoot(), 'deploy', 'rbac.yaml'), 'utf8');
  for (const document of parseAllDocuments(text)) {
    const object = document.toJS() as KubeObject;
    const gvr = kinds.find(({ kind }) => kind === object.kind);
    if (gvr === undefined) throw new TypeError(`deploy/rbac.yaml: unexpected kind ${object.kind ?? ''}`);
    const { namespace: where, name = '' } = object.metadata ?? {};
    try {
      await client.create(gvr, object);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      await client.patch(gvr, { namespace: where, name }, { type: 'merge', body: object });
    }
  }
}
