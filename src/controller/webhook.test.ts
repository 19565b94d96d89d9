import assert from 'node:assert/strict';
import { request as httpsRequest } from 'node:https';
import { describe, it } from 'node:test';
import jsonPatch from 'fast-json-patch';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import type { NetworkAttachmentDefinition } from '../api/spidermultusconfig.ts';
import { systemClock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import type { AddressAdmissionOptions } from './admission-addresses.ts';
import { AdmissionClaims, type Claim, type ClaimStore } from './admission-claims.ts';
import type { AdmissionResponse } from './admission.ts';
import { createWebhookCertificate } from './webhook-certificate.ts';
import { webhookHandlers } from './webhook-handlers.ts';
import { createWebhookServer, webhookPaths } from './webhook-server.ts';

interface World {
  readonly pools?: readonly SpiderIPPool[];
  readonly subnets?: readonly SpiderSubnet[];
  readonly attachment?: NetworkAttachmentDefinition | undefined;
  readonly options?: AddressAdmissionOptions;
  readonly claims?: ClaimStore;
}

function handlers({ pools = [], subnets = [], attachment, options, claims = memoryClaims() }: World) {
  return webhookHandlers({
    listPools: async () => pools,
    listSubnets: async () => subnets,
    readAttachment: async () => attachment,
    claims: new AdmissionClaims(claims, systemClock),
    options,
  });
}

function server(pools: readonly SpiderIPPool[] = [], world: World = {}) {
  return createWebhookServer(handlers({ ...world, pools }), silentLogger);
}

/** Versions as an API server checks them. */
function memoryClaims(): ClaimStore & { readonly writes: () => number } {
  let stored: readonly Claim[] = [];
  let version = 0;
  return {
    writes: () => version,
    read: async () => ({ claims: stored, version: version === 0 ? undefined : String(version) }),
    write: async (claims, base) => {
      await new Promise((resolve) => setImmediate(resolve));
      if (base !== (version === 0 ? undefined : String(version))) {
        throw new SluiceError({ code: 'kube_conflict', operation: 'replace', object: 'claims', what: 'changed' });
      }
      stored = claims;
      version++;
    },
  };
}

type Server = ReturnType<typeof server>;

function review(kind: string, object: object | null, oldObject: object | null = null): object {
  const operation = oldObject === null ? 'CREATE' : 'UPDATE';
  const group = 'spiderpool.spidernet.io';
  const request = { uid: 'r1', kind: { group, version: 'v2beta1', kind }, operation, object, oldObject };
  return { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request };
}

async function ask(to: Server, path: keyof typeof webhookPaths, body: object): Promise<AdmissionResponse> {
  const answer = await to.inject({ method: 'POST', url: webhookPaths[path], payload: body });
  assert.equal(answer.statusCode, 200, answer.body);
  return answer.json<{ response: AdmissionResponse }>().response;
}

/** Mutates and then validates, as the API server does. */
async function admitPool(
  to: Server,
  pool: object,
  old?: object,
): Promise<{ pool: SpiderIPPool; verdict: AdmissionResponse; warnings: readonly string[] }> {
  const mutation = await ask(to, 'mutatePool', review('SpiderIPPool', pool, old));
  const mutated = patched(pool, mutation) as SpiderIPPool;
  const verdict = await ask(to, 'validatePool', review('SpiderIPPool', mutated, old));
  return { pool: mutated, verdict, warnings: mutation.warnings ?? [] };
}

function patched(object: object, response: AdmissionResponse): object {
  if (response.patch === undefined) return object;
  const patch = JSON.parse(Buffer.from(response.patch, 'base64').toString()) as jsonPatch.Operation[];
  return jsonPatch.applyPatch(structuredClone(object), patch).newDocument;
}

const walkthroughPool = {
  apiVersion: 'spiderpool.spidernet.io/v2beta1',
  kind: 'SpiderIPPool',
  metadata: { name: 'ens192-v4' },
  spec: {
    default: false,
    disable: false,
    gateway: '172.51.0.1',
    ipVersion: 4,
    ips: ['172.51.0.100-172.51.0.108'],
    subnet: '172.51.0.230/16',
  },
};

function poolWith(spec: object, name = 'p'): object {
  return { metadata: { name }, spec };
}

function stored(name: string, spec: SpiderIPPool['spec'], more: object = {}): SpiderIPPool {
  return { metadata: { name, resourceVersion: '1', uid: name }, spec, ...more };
}

describe('pool admission', () => {
  it("takes the walkthrough's pool as it is printed, canonical and with a warning", async () => {
    const { pool, verdict, warnings } = await admitPool(server(), walkthroughPool);
    assert.equal(verdict.allowed, true);
    assert.equal(pool.spec.subnet, '172.51.0.0/16');
    assert.deepEqual(pool.metadata.finalizers, ['spiderpool.spidernet.io']);
    assert.equal(pool.metadata.labels?.['ipam.spidernet.io/ippool-cidr'], '172-51-0-0-16');
    assert.match(warnings.join(), /"172\.51\.0\.230\/16".*"172\.51\.0\.0\/16"/);
  });

  it('takes it a second time, as `kubectl apply` sends it', async () => {
    const { pool } = await admitPool(server(), walkthroughPool);
    const again = { ...pool, spec: { ...pool.spec, subnet: '172.51.0.230/16' } };
    const { verdict } = await admitPool(server([pool]), again, pool);
    assert.equal(verdict.allowed, true, verdict.status?.message);
  });

  it('refuses the printed subnet when told to be strict', async () => {
    const to = server([], { options: { strictSubnet: true } });
    const { verdict } = await admitPool(to, walkthroughPool);
    assert.match(
      verdict.status?.message ?? '',
      /unformatted subnet 172\.51\.0\.230\/16, please change it to 172\.51\.0\.0\/16/,
    );
  });

  const base = { subnet: '10.0.0.0/16', ips: ['10.0.0.10-10.0.0.20'] };
  for (const [what, spec, message] of [
    [
      'a bad subnet',
      { subnet: '10.0.0.0/33' },
      /spec\.ipVersion: .*is not generated correctly, 'spec.subnet' may be invalid.*invalid CIDR format in IPv4 '10\.0\.0\.0\/33'/,
    ],
    ['a version of the other family', { ...base, ipVersion: 6 }, /invalid CIDR format in IPv6 '10\.0\.0\.0\/16'/],
    ['an unknown version', { ...base, ipVersion: 5 }, /Unsupported value: 5: supported values: "4", "6"/],
    [
      'a range outside the subnet',
      { ...base, ips: ['10.1.0.1'] },
      /spec\.ips\[0\]: Invalid value: "10\.1\.0\.1": not match base subnet: 10\.0\.0\.0\/16/,
    ],
    [
      'a reversed range',
      { ...base, ips: ['10.0.0.9-10.0.0.1'] },
      /runs backwards, please change it to 10\.0\.0\.1-10\.0\.0\.9/,
    ],
    ['a malformed range', { ...base, ips: ['10.0.0.0/24'] }, /invalid IP range format/],
    [
      'a gateway outside',
      { ...base, gateway: '10.1.0.1' },
      /spec\.gateway: .*not pertains to the 'spec\.subnet' 10\.0\.0\.0\/16 of IPPool/,
    ],
    [
      'a gateway among the addresses',
      { ...base, gateway: '10.0.0.10' },
      /spec\.ips: Forbidden: conflicts with 'spec\.gateway' 10\.0\.0\.10, add the gateway IP address to 'spec\.excludeIPs'/,
    ],
    [
      'an IPv6 gateway spelled differently',
      { subnet: 'fd00::/64', ips: ['fd00::1'], gateway: 'fd00:0::0:1' },
      /conflicts with 'spec\.gateway'/,
    ],
    [
      'a default route',
      { ...base, routes: [{ dst: '0.0.0.0/0', gw: '10.0.0.1' }] },
      /please specify 'spec\.gateway' to configure the default route/,
    ],
    [
      'a route twice',
      {
        ...base,
        routes: [
          { dst: '10.9.0.0/16', gw: '10.0.0.1' },
          { dst: '10.9.1.0/16', gw: '10.0.0.2' },
        ],
      },
      /spec\.routes\[1\]\.dst: .*duplicate route with the same dst/,
    ],
    ['a route via elsewhere', { ...base, routes: [{ dst: '10.9.0.0/16', gw: '10.8.0.1' }] }, /spec\.routes\[0\]\.gw/],
    ['an empty podAffinity', { ...base, podAffinity: {} }, /empty podAffinity is invalid for SpiderIPPool/],
    [
      'a bad operator',
      { ...base, nodeAffinity: { matchExpressions: [{ key: 'a', operator: 'Is' }] } },
      /spec\.nodeAffinity\.matchExpressions\[0\]\.operator: Unsupported value: "Is"/,
    ],
    [
      'a subnet that overlaps',
      { subnet: '10.5.0.0/24' },
      /overlap with IPPool other which 'spec\.subnet' is 10\.5\.0\.0\/16/,
    ],
    [
      'addresses that overlap',
      { subnet: '10.5.0.0/16', ips: ['10.5.0.5-10.5.0.30'] },
      /spec\.ips: Forbidden: overlap with IPPool other in IP ranges \[10\.5\.0\.10-10\.5\.0\.20\]/,
    ],
  ] as const) {
    it(`refuses ${what}, naming field and remedy`, async () => {
      const other = stored('other', { ipVersion: 4, subnet: '10.5.0.0/16', ips: ['10.5.0.10-10.5.0.20'] });
      const { verdict } = await admitPool(server([other]), poolWith(spec));
      assert.equal(verdict.allowed, false);
      assert.match(verdict.status?.message ?? '', message);
      assert.match(verdict.status?.message ?? '', /^SpiderIPPool "p" is invalid: /);
      assert.equal(verdict.status?.details?.name, 'p');
      assert.ok((verdict.status?.details?.causes.length ?? 0) > 0);
    });
  }

  it('admits a gateway that is excluded, and merges several ranges', async () => {
    const spec = {
      ...base,
      ips: ['10.0.0.12', '10.0.0.10-10.0.0.11'],
      gateway: '10.0.0.10',
      excludeIPs: ['10.0.0.10'],
    };
    const { pool, verdict } = await admitPool(server(), poolWith(spec));
    assert.equal(verdict.allowed, true, verdict.status?.message);
    assert.deepEqual(pool.spec.ips, ['10.0.0.10-10.0.0.12']);
    assert.equal(pool.spec.ipVersion, 4);
  });

  const used = stored(
    'p',
    { ipVersion: 4, subnet: '10.0.0.0/16', ips: ['10.0.0.10-10.0.0.20'] },
    {
      status: { allocatedIPs: '{"10.0.0.15":{"pod":"default/a","podUid":"u"}}', allocatedIPCount: 1 },
    },
  );
  for (const [what, spec, message] of [
    ['another subnet', { ...used.spec, subnet: '10.1.0.0/16', ips: [] }, /spec\.subnet: Forbidden: is not changeable/],
    ['another version', { ...used.spec, ipVersion: 6 }, /spec\.ipVersion: Forbidden: is not changeable/],
    [
      'a used address removed',
      { ...used.spec, excludeIPs: ['10.0.0.15'] },
      /remove an IP address 10\.0\.0\.15 that is being used by Pod default\/a/,
    ],
  ] as const) {
    it(`refuses an update with ${what}`, async () => {
      const { verdict } = await admitPool(server([used]), { ...used, spec }, used);
      assert.equal(verdict.allowed, false);
      assert.match(verdict.status?.message ?? '', message);
    });
  }

  it('lets only the finalizer of a terminating pool go', async () => {
    const going = {
      ...used,
      metadata: {
        ...used.metadata,
        deletionTimestamp: '2026-01-01T00:00:00Z',
        finalizers: ['spiderpool.spidernet.io'],
      },
    };
    const released = { ...going, metadata: { ...going.metadata, finalizers: [] } };
    assert.equal((await admitPool(server([going]), released, going)).verdict.allowed, true);
    const changed = { ...going, spec: { ...going.spec, disable: true } };
    assert.match(
      (await admitPool(server([going]), changed, going)).verdict.status?.message ?? '',
      /terminating IPPool/,
    );
  });

  it('admits one of 100 overlapping pools that are created at once', async () => {
    const to = server();
    const verdicts = await Promise.all(Array.from({ length: 100 }, (_, n) => admitPool(to, poolWith(base, `p${n}`))));
    assert.equal(verdicts.filter(({ verdict }) => verdict.allowed).length, 1);
  });

  it('admits one of 100 when three controllers judge them', async () => {
    const claims = memoryClaims();
    const replicas = [1, 2, 3].map(() => server([], { claims }));
    const verdicts = await Promise.all(
      Array.from({ length: 100 }, (_, n) => admitPool(replicas[n % 3] ?? assert.fail(), poolWith(base, `p${n}`))),
    );
    assert.equal(verdicts.filter(({ verdict }) => verdict.allowed).length, 1);
    assert.equal(claims.writes(), 1);
  });

  it('admits all of 60 that share nothing, judged by three controllers', async () => {
    const claims = memoryClaims();
    const replicas = [1, 2, 3].map(() => server([], { claims }));
    const own = (n: number): object => poolWith({ subnet: '10.0.0.0/16', ips: [`10.0.1.${n}`] }, `p${n}`);
    const verdicts = await Promise.all(
      Array.from({ length: 60 }, (_, n) => admitPool(replicas[n % 3] ?? assert.fail(), own(n))),
    );
    assert.ok(verdicts.every(({ verdict }) => verdict.allowed));
  });

  it('keeps the claim of an earlier spec of the same name', async () => {
    const to = server();
    assert.equal((await admitPool(to, poolWith({ ...base, ips: ['10.0.0.1'] }, 'a'))).verdict.allowed, true);
    assert.equal((await admitPool(to, poolWith({ ...base, ips: ['10.0.0.2'] }, 'a'))).verdict.allowed, true);
    // Which of the two the API server stores is not known here.
    assert.equal((await admitPool(to, poolWith({ ...base, ips: ['10.0.0.1'] }, 'b'))).verdict.allowed, false);
    assert.equal((await admitPool(to, poolWith({ ...base, ips: ['10.0.0.2'] }, 'b'))).verdict.allowed, false);
  });

  it('refuses a family that is switched off', async () => {
    const to = server([], { options: { disabledFamilies: [6] } });
    const { verdict } = await admitPool(to, poolWith({ subnet: 'fd00::/64' }));
    assert.match(verdict.status?.message ?? '', /spec\.ipVersion: Forbidden: IPv6 is disabled/);
  });

  it('refuses to delete a pool in use only when told to', async () => {
    const body = { ...review('SpiderIPPool', null, used) } as { request: Record<string, unknown> };
    const deletion = { ...body, request: { ...body.request, operation: 'DELETE', name: 'p' } };
    assert.equal((await ask(server([used]), 'validatePool', deletion)).allowed, true);
    const refusing = server([used], { options: { refuseDeletion: true } });
    const verdict = await ask(refusing, 'validatePool', deletion);
    assert.match(verdict.status?.message ?? '', /IPPool p has 1 IP addresses in use and cannot be deleted/);
  });

  it('says AlreadyExists for a name that is taken', async () => {
    const { verdict } = await admitPool(server([used]), poolWith({ subnet: '10.7.0.0/16' }));
    assert.equal(verdict.status?.reason, 'AlreadyExists');
    assert.match(verdict.status.message, /IPPool p AlreadyExists/);
  });
});

async function admitConfig(
  spec: unknown,
  annotations: Record<string, string> = {},
  attachment?: NetworkAttachmentDefinition,
): Promise<AdmissionResponse> {
  const to = server([], { attachment });
  const config = { metadata: { name: 'c', namespace: 'kube-system', uid: 'u', annotations }, spec };
  const mutation = await ask(to, 'mutateMultusConfig', review('SpiderMultusConfig', config));
  return ask(to, 'validateMultusConfig', review('SpiderMultusConfig', patched(config, mutation)));
}

describe('multus config admission', () => {
  const ipvlan = { cniType: 'ipvlan', ipvlan: { master: ['ens192'] } };

  it('warns when a chained cilium-cni has another network name', async () => {
    const chained = { ...ipvlan, chainCNIJsonData: ['{ "type": "cilium-cni" }'] };
    assert.match((await admitConfig(chained)).warnings?.join() ?? '', /spidernet-chainer/);
    const named = await admitConfig(chained, { 'cni.spidernet.io/cniconfig-name': 'spidernet-chainer' });
    assert.deepEqual([named.allowed, named.warnings], [true, undefined]);
  });

  for (const [what, spec, annotations, message] of [
    [
      'an unknown type',
      { cniType: 'ipvlann' },
      {},
      /spec\.cniType: Unsupported value: "ipvlann": supported values: "macvlan", "ipvlan"/,
    ],
    ['a missing block', { cniType: 'ipvlan' }, {}, /spec\.ipvlan: Required value: no spec\.ipvlanConfig specified/],
    [
      "another type's block",
      { ...ipvlan, macvlan: { master: ['e'] } },
      {},
      /spec\.macvlan: Forbidden: the cniType ipvlan only supports spec\.ipvlanConfig, please remove other CNI configs/,
    ],
    ['an empty parent', { cniType: 'macvlan', macvlan: { master: [''] } }, {}, /master can't be empty/],
    [
      'two parents without a bond',
      { cniType: 'macvlan', macvlan: { master: ['a', 'b'] } },
      {},
      /the bond property is nil with multiple Interfaces/,
    ],
    [
      'a VLAN id of 4095',
      { cniType: 'macvlan', macvlan: { master: ['a'], vlanID: 4095 } },
      {},
      /spec\.macvlan\.vlanID: Invalid value: 4095: must be in the range of 0 to 4094/,
    ],
    [
      'a VLAN id with mode auto',
      { cniType: 'vlan', vlan: { master: ['a'], vlanMode: 'auto', vlanID: 5 } },
      {},
      /spec\.vlan\.vlanID: Forbidden/,
    ],
    [
      'matchMasterSubnet',
      { cniType: 'ipvlan', ipvlan: { master: ['a'], ippools: { matchMasterSubnet: true } } },
      {},
      /MatchMasterSubnet feature is not supported for ipvlan/,
    ],
    [
      'an OVS trunk with half a range',
      { cniType: 'ovs', ovs: { bridge: 'b', trunk: [{ maxID: 5 }] } },
      {},
      /spec\.ovs\.trunk\[0\]\.minID: Required/,
    ],
    ['custom that is no JSON', { cniType: 'custom', customCNI: '{' }, {}, /customCNI must be valid JSON/],
    [
      'a chain element without a type',
      { ...ipvlan, chainCNIJsonData: ['{"a":1}'] },
      {},
      /spec\.chainCNIJsonData\[0\]: Forbidden: it has no type/,
    ],
    [
      'podMACPrefix with ipvlan',
      { ...ipvlan, coordinator: { podMACPrefix: '0a:1b' } },
      {},
      /spec\.coordinator\.podMACPrefix: Forbidden/,
    ],
    [
      'a multicast MAC prefix',
      { cniType: 'macvlan', macvlan: { master: ['a'] }, coordinator: { podMACPrefix: '01:1b' } },
      {},
      /not a unicast MAC: the lowest bit of the first byte must be 0/,
    ],
    [
      'a routing table that is none',
      { ...ipvlan, coordinator: { hostRuleTable: 0 } },
      {},
      /spec\.coordinator\.hostRuleTable: Invalid value: 0: must be the number of a routing table, 1 to 4294967295/,
    ],
    [
      'an MTU that no interface has',
      { ...ipvlan, coordinator: { vethMTU: 65_536 } },
      {},
      /spec\.coordinator\.vethMTU: Invalid value: 65536: must be 1 or more, at most 65535/,
    ],
    [
      'a bond without a name',
      { cniType: 'ipvlan', ipvlan: { master: ['a', 'b'], bond: { name: '', mode: 1 } } },
      {},
      /spec\.ipvlan\.bond\.name: Required value: bond name can't be empty/,
    ],
    [
      'a bond whose name no interface can have',
      { cniType: 'ipvlan', ipvlan: { master: ['a', 'b'], bond: { name: 'bond-of-the-underlay', mode: 1 } } },
      {},
      /spec\.ipvlan\.bond\.name: Invalid value: "bond-of-the-underlay": must be a name for an interface: at most 15/,
    ],
    [
      'a route of two families',
      { ...ipvlan, coordinator: { policyRoutes: [{ dst: '10.0.0.0/8', gw: 'fd00::1' }] } },
      {},
      /dst and gw must use the same IP family/,
    ],
    [
      'a CNI version nobody speaks',
      ipvlan,
      { 'multus.spidernet.io/cni-version': '0.9.0' },
      /unsupported CNI version 0\.9\.0/,
    ],
    [
      'a network name with a slash',
      ipvlan,
      { 'cni.spidernet.io/cniconfig-name': 'a/b' },
      /a CNI network name starts with/,
    ],
    ['a target name in capitals', ipvlan, { 'multus.spidernet.io/cr-name': 'A' }, /DNS-1123 subdomain/],
    [
      'injection for custom',
      { cniType: 'custom' },
      { 'cni.spidernet.io/rdma-resource-inject': 'x' },
      /is not supported for cniType custom/,
    ],
  ] as const) {
    it(`refuses ${what}`, async () => {
      const verdict = await admitConfig(spec, annotations);
      assert.equal(verdict.allowed, false);
      assert.match(verdict.status?.message ?? '', message);
    });
  }

  it("refuses another config's attachment and adopts one without an owner", async () => {
    const owner = { apiVersion: 'v', kind: 'SpiderMultusConfig', name: 'd', uid: 'd', controller: true };
    const verdict = await admitConfig(ipvlan, {}, { metadata: { name: 'c', ownerReferences: [owner] } });
    assert.match(
      verdict.status?.message ?? '',
      /the net-attach-def kube-system\/c already exists and is managed by SpiderMultusConfig kube-system\/d\./,
    );
    assert.equal((await admitConfig(ipvlan, {}, { metadata: { name: 'c' } })).allowed, true);
  });
});

describe('webhook server', () => {
  it('refuses what is not an AdmissionReview', async () => {
    const answer = await server().inject({ method: 'POST', url: webhookPaths.mutatePool, payload: { a: 1 } });
    assert.equal(answer.statusCode, 400);
  });

  it('is trusted by a client that knows the CA, by IP address and by name', async () => {
    const certificate = await createWebhookCertificate(['127.0.0.1', 'localhost'], Date.now());
    const to = createWebhookServer(handlers({}), silentLogger, certificate);
    const url = new URL(await to.listen({ host: '127.0.0.1', port: 0 }));
    try {
      const body = JSON.stringify(review('SpiderIPPool', walkthroughPool));
      const answer = await new Promise<string>((resolve, reject) => {
        const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
        const request = httpsRequest(
          {
            host: '127.0.0.1',
            port: url.port,
            path: webhookPaths.mutatePool,
            method: 'POST',
            ca: certificate.caPem,
            headers,
          },
          (response) => {
            let text = '';
            response.on('data', (chunk: Buffer) => (text += chunk.toString()));
            response.on('end', () => resolve(text));
          },
        );
        request.on('error', reject);
        request.end(body);
      });
      assert.equal((JSON.parse(answer) as { response: AdmissionResponse }).response.allowed, true);
    } finally {
      await to.close();
    }
  });
});
