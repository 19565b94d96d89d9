/** Registers the contract cases with node:test, against whatever server the endpoint names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { admissionCases } from './admission.ts';
import { authorizationCases } from './authorization.ts';
import { ContractClient, type Endpoint } from './client.ts';
import { controllerCases } from './controllers.ts';
import { customCases } from './custom.ts';
import { networkPolicyCases } from './network-policy.ts';
import { objectCases } from './objects.ts';
import { readingCases } from './reading.ts';
import { validationCases } from './validation.ts';

export const contractCases = [
  ...objectCases,
  ...validationCases,
  ...networkPolicyCases,
  ...readingCases,
  ...customCases,
  ...admissionCases,
  ...authorizationCases,
  ...controllerCases,
];

/** Every case gets a namespace of its own. `endpoint` is asked for when the first case runs. */
export function runContract(endpoint: () => Endpoint, withControllers: boolean): void {
  for (const { name, run, controllers } of contractCases) {
    if (controllers === true && !withControllers) continue;
    void test(name, async () => {
      const client = new ContractClient(endpoint());
      try {
        const own = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: client.namespace } };
        assert.equal((await client.post('/api/v1/namespaces', own)).status, 201);
        await run(client);
      } finally {
        await client.delete(`/api/v1/namespaces/${client.namespace}`).catch(() => undefined);
        client.close();
      }
    });
  }
}
