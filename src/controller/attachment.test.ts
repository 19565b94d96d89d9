import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { MultusConfigSpec } from '../api/spidermultusconfig.ts';
import { desiredAttachment } from './attachment.ts';
import { goJson } from './go-json.ts';
import { defaultMultusConfig } from './multus-defaults.ts';

interface Vector {
  readonly name: string;
  readonly spec: MultusConfigSpec;
  readonly annotations: Record<string, string>;
  readonly attachment: string;
  readonly attachmentAnnotations: Record<string, string>;
  readonly config: string | null;
}

/** Strings that Spiderpool itself produced, changed only where `differsFromSpiderpool` says so. */
const vectors = JSON.parse(
  readFileSync(new URL('testdata/attachments.json', import.meta.url), 'utf8'),
) as readonly Vector[];

/** The name of the config; vectors with a cr-name annotation differ from it. */
function configName(vector: Vector): string {
  return vector.annotations['multus.spidernet.io/cr-name'] === undefined ? vector.attachment : 'configured';
}

describe('generated attachments', () => {
  it('has the whole set of vectors', () => assert.equal(vectors.length, 19));

  for (const vector of vectors) {
    it(vector.name, () => {
      const metadata = {
        name: configName(vector),
        namespace: 'kube-system',
        uid: 'u1',
        annotations: vector.annotations,
      };
      const attachment = desiredAttachment(defaultMultusConfig({ metadata, spec: vector.spec }));
      assert.equal(attachment.metadata.name, vector.attachment);
      assert.equal(attachment.metadata.namespace, 'kube-system');
      assert.deepEqual(attachment.metadata.annotations, vector.attachmentAnnotations);
      assert.equal(attachment.spec?.config, vector.config ?? undefined);
    });
  }

  it("leaves kubectl's own annotations behind and names its owner", () => {
    const annotations = {
      'cni.spidernet.io/cniconfig-name': 'spidernet-chainer',
      'kubectl.kubernetes.io/last-applied-configuration': '{}',
    };
    const metadata = { name: 'ipvlan-conf', namespace: 'kube-system', uid: 'u1', annotations };
    const attachment = desiredAttachment(
      defaultMultusConfig({ metadata, spec: { cniType: 'ipvlan', ipvlan: { master: ['e'] } } }),
    );
    assert.deepEqual(attachment.metadata.annotations, { 'cni.spidernet.io/cniconfig-name': 'spidernet-chainer' });
    assert.deepEqual(attachment.metadata.ownerReferences, [
      {
        apiVersion: 'spiderpool.spidernet.io/v2beta1',
        blockOwnerDeletion: true,
        controller: true,
        kind: 'SpiderMultusConfig',
        name: 'ipvlan-conf',
        uid: 'u1',
      },
    ]);
  });
});

describe('goJson', () => {
  for (const [text, expected] of [
    ['{"10":1,"2":2,"a":3}', '{"10":1,"2":2,"a":3}'],
    ['{"__proto__":1,"Z":2}', '{"Z":2,"__proto__":1}'],
    ['[-0,1e-7,1.50,1e21]', '[-0,1e-7,1.5,1e+21]'],
    ['{"\u{1F600}":1,"\uff5e":2}', '{"\uff5e":2,"\u{1F600}":1}'],
    ['"<&>\\u2028"', '"\\u003c\\u0026\\u003e\\u2028"'],
  ] as const) {
    it(`writes ${text} as Go does`, () => assert.equal(goJson(JSON.parse(text)), expected));
  }
});
