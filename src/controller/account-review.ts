/** Whether the accounts may do what the code asks for: the API server is asked, right by right. */
import type { KubeObject } from '../api/kubernetes.ts';
import type { GroupVersionResource } from '../api/resources.ts';
import { accountGroups, accountUser } from '../api/service-account.ts';
import type { PreflightFinding } from '../core/preflight-finding.ts';
import type { KubeClient } from '../kube/client.ts';

/** A rule of a role, and who has it where. */
export interface Grant {
  readonly account: { readonly namespace: string; readonly name: string };
  /** Absent: everywhere. */
  readonly namespace?: string | undefined;
  readonly rule: {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly resourceNames?: readonly string[];
    readonly verbs: readonly string[];
  };
}

interface Right {
  readonly account: Grant['account'];
  readonly attributes: Readonly<Record<string, string>>;
}

const reviews: GroupVersionResource = {
  ...{ group: 'authorization.k8s.io', version: 'v1', plural: 'subjectaccessreviews' },
  ...{ kind: 'SubjectAccessReview', namespaced: false },
};

export async function accountFindings(client: KubeClient, grants: readonly Grant[]): Promise<PreflightFinding[]> {
  const check = 'rbac';
  const rights = grants.flatMap(rightsOf);
  const missing: Right[] = [];
  const atOnce = 16;
  for (let from = 0; from < rights.length; from += atOnce) {
    const some = rights.slice(from, from + atOnce);
    const allowed = await Promise.all(some.map((right) => isAllowed(client, right)));
    missing.push(...some.filter((_, index) => allowed[index] !== true));
  }
  if (missing.length === 0) return [{ check, state: 'ok', what: `the accounts have all ${rights.length} rights` }];
  return [...new Set(missing.map(userOf))].map((user) => {
    const all = missing.filter((right) => userOf(right) === user);
    const shown = all.slice(0, 5).map(({ attributes: { verb, resource } }) => `${verb ?? ''} ${resource ?? ''}`);
    const more = all.length > shown.length ? ` and ${all.length - shown.length} more` : '';
    const what = `${user} may not: ${shown.join(', ')}${more}`;
    return { check, state: 'problem' as const, what, remedy: 'kubectl apply -f deploy/rbac.yaml' };
  });
}

function rightsOf({ account, namespace, rule }: Grant): Right[] {
  const names = rule.resourceNames ?? [''];
  return rule.apiGroups.flatMap((group) =>
    rule.resources.flatMap((path) =>
      rule.verbs.flatMap((verb) =>
        names.map((name) => {
          const [resource = '', subresource = ''] = path.split('/');
          return { account, attributes: { group, resource, subresource, verb, name, namespace: namespace ?? '' } };
        }),
      ),
    ),
  );
}

function userOf({ account: { namespace, name } }: Right): string {
  return accountUser(namespace, name);
}

async function isAllowed(client: KubeClient, right: Right): Promise<boolean> {
  const groups = [...accountGroups(right.account.namespace), 'system:authenticated'];
  const spec = { user: userOf(right), groups, resourceAttributes: right.attributes };
  const answer = await client.create(reviews, { spec } as KubeObject);
  return (answer as { readonly status?: { readonly allowed?: boolean } }).status?.allowed === true;
}
