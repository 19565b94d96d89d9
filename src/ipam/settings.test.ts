import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { environmentVariables } from './settings-environment.ts';
import { disabledFamilies, honouredKeys, ignoredKeys, readSettings } from './settings.ts';

describe('settings', () => {
  it('have their defaults without a file and without variables', () => {
    const { settings, warnings } = readSettings(undefined);
    assert.equal(settings.enableIPv4, true);
    assert.equal(settings.enableIPConflictDetection, false);
    assert.equal(settings.clusterSubnetDefaultFlexibleIPNumber, 1);
    assert.equal(settings.tuneSysctlConfig, false);
    assert.equal(settings.coordinatorName, 'default');
    assert.equal(settings.gcIntervalS, 600);
    assert.deepEqual(warnings, []);
    assert.deepEqual(disabledFamilies(settings), []);
  });

  it('are those of the file, clusterSubnetDefaultFlexibleIPNumber included', () => {
    const { settings } = readSettings('enableIPv6: false\nclusterSubnetDefaultFlexibleIPNumber: 3\n');
    assert.deepEqual(disabledFamilies(settings), [6]);
    assert.equal(settings.clusterSubnetDefaultFlexibleIPNumber, 3);
  });

  it('know both spellings of the coordinator variable', () => {
    for (const name of ['SPIDERPOOL_COORDINATOR_DEAFULT_NAME', 'SPIDERPOOL_COORDINATOR_DEFAULT_NAME']) {
      assert.equal(readSettings('', { [name]: 'other' }).settings.coordinatorName, 'other');
    }
  });

  it('take empty variables as unset, and read the others', () => {
    const { settings } = readSettings('', {
      SPIDERPOOL_GC_IP_ENABLED: '',
      SPIDERPOOL_IPPOOL_MAX_ALLOCATED_IPS: '100',
      SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS: 'False',
    });
    assert.equal(settings.gcEnabled, true);
    assert.equal(settings.maxRecordsPerPool, 100);
    assert.equal(settings.releaseConflictIps, false);
  });

  it('warn of keys that have no effect, and not of those that are off', () => {
    const { warnings } = readSettings(
      'enableIPv5: true\npodResourceInject: {enabled: false}\niaasNetworkProvider: {a: b}\n',
    );
    assert.equal(warnings.length, 2);
    assert.match(warnings.join('\n'), /no key enableIPv5/);
    assert.match(warnings.join('\n'), /iaasNetworkProvider is not honoured/);
  });

  for (const [what, conf, environment, message] of [
    ['a text for tuneSysctlConfig', 'tuneSysctlConfig: on please', {}, /give tuneSysctlConfig true or false/],
    ['a text for a flag', 'enableIPv4: "yes"', {}, /conf\.yml.*enableIPv4.*give enableIPv4 true or false/s],
    [
      'a negative number',
      'clusterSubnetDefaultFlexibleIPNumber: -1',
      {},
      /clusterSubnetDefaultFlexibleIPNumber.*a number from 0/s,
    ],
    ['no family', 'enableIPv4: false\nenableIPv6: false', {}, /both false.*set one of the two to true/s],
    ['a list', '- a', {}, /not a mapping/],
    ['broken YAML', 'a: [', {}, /not YAML/],
    [
      'a bad number',
      '',
      { SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY: '5s' },
      /SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY.*"5s" is not a number/s,
    ],
    ['a bad name', '', { SPIDERPOOL_CILIUM_CONFIGMAP_NAMESPACE_NAME: 'x' }, /CILIUM.*namespace\/name/s],
  ] as const) {
    it(`refuse ${what}, naming key and remedy`, () => {
      assert.throws(
        () => readSettings(conf, environment),
        (error: Error) => message.test(`${error.message} ${(error as { remedy?: string }).remedy ?? ''}`),
      );
    });
  }

  it('are all in docs/reference/configuration.md', () => {
    const text = readFileSync(new URL('../../docs/reference/configuration.md', import.meta.url), 'utf8');
    const variables = Object.values(environmentVariables).flatMap(({ names }) => names);
    for (const key of [...honouredKeys, ...ignoredKeys, ...variables]) assert.ok(text.includes(`\`${key}\``), key);
  });
});
