import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import * as resources from './resources.ts';

/** Names, scope, subresources and columns that users' scripts and kubectl habits depend on. */

interface Definition {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly scope: string;
    readonly names: { readonly shortNames: readonly string[]; readonly categories: readonly string[] };
    readonly versions: readonly {
      readonly name: string;
      readonly subresources?: object;
      readonly additionalPrinterColumns?: readonly { readonly name: string; readonly priority?: number }[];
    }[];
  };
}

function definition(plural: string): Definition {
  const url = new URL(`../../deploy/crds/spiderpool.spidernet.io_${plural}.yaml`, import.meta.url);
  return parse(readFileSync(url, 'utf8')) as Definition;
}

const addressColumns = ['VERSION', 'SUBNET', 'ALLOCATED-IP-COUNT', 'TOTAL-IP-COUNT'];

describe('resource definitions', () => {
  for (const [gvr, shortName, hasStatus, columns] of [
    [resources.spiderIPPools, 'sp', true, [...addressColumns, 'DEFAULT']],
    [resources.spiderSubnets, 'ss', true, addressColumns],
    [resources.spiderReservedIPs, 'sr', false, ['VERSION']],
    [resources.spiderEndpoints, 'se', false, ['INTERFACE', 'IPV4POOL', 'IPV4', 'IPV6POOL', 'IPV6', 'NODE']],
    [resources.spiderCoordinators, 'scc', true, []],
    [resources.spiderMultusConfigs, 'smc', true, []],
  ] as const) {
    it(`${gvr.kind} is what kubectl knows as ${shortName}`, () => {
      const { metadata, spec } = definition(gvr.plural);
      assert.equal(metadata.name, `${gvr.plural}.spiderpool.spidernet.io`);
      assert.equal(spec.scope, gvr.namespaced ? 'Namespaced' : 'Cluster');
      assert.deepEqual(spec.names.shortNames, [shortName]);
      assert.deepEqual(spec.names.categories, ['spiderpool']);
      const [version] = spec.versions;
      assert.equal(version?.name, 'v2beta1');
      assert.equal(version?.subresources !== undefined, hasStatus);
      const shown = (version?.additionalPrinterColumns ?? []).filter(({ priority = 0 }) => priority === 0);
      assert.deepEqual(
        shown.map(({ name }) => name),
        columns,
      );
    });
  }
});
