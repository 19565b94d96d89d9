import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { IpamTestApi, type TestAgentOptions } from '../cni/ipam-test-api.ts';
import { addInterface } from '../cni/ipam-add.ts';
import { parseIp } from '../core/ip.ts';
import { createIpamPlugin } from '../cni/ipam.ts';
import { podTurns } from './pod-turns.ts';
import { buildSpiderApi } from './spider-api.ts';

const args = {
  containerID: 'c1',
  ifName: 'eth0',
  netNamespace: '/run/netns/x',
  podNamespace: 'default',
  podName: 'a',
  podUID: 'uid-a',
};

function made(releaseConflictIps = true, options: TestAgentOptions = {}) {
  const api = new IpamTestApi();
  api.addPool('p', {
    ipVersion: 4,
    subnet: '10.0.0.0/24',
    ips: ['10.0.0.10-10.0.0.12'],
    gateway: '10.0.0.1',
    routes: [{ dst: '10.9.0.0/16', gw: '10.0.0.2' }],
  });
  api.addPod('a');
  const { state } = api.agent(options);
  const app = buildSpiderApi({
    state,
    add: (request, signal) => addInterface(state, request, signal),
    plugin: createIpamPlugin(state.deps, state),
    inTurn: podTurns(),
    coordinator: async ({ name }) => ({ mode: name, overlayPodCIDR: [], serviceCIDR: [], tunePodRoutes: true }),
    releaseConflictIps,
  });
  return { api, app };
}

describe("the socket of Spiderpool's executables", () => {
  it('gives, shows and takes back an address in their shapes', async () => {
    const { api, app } = made();
    assert.equal((await app.inject({ url: '/v1/ipam/healthy' })).statusCode, 200);
    const body = { ...args, defaultIPv4IPPool: ['p'], defaultIPv6IPPool: null };
    const added = await app.inject({ method: 'POST', url: '/v1/ipam/ip', payload: body });
    assert.equal(added.statusCode, 200, added.body);
    assert.deepEqual(added.json(), {
      ips: [
        {
          version: 4,
          address: '10.0.0.10/24',
          nic: 'eth0',
          ipPool: 'p',
          gateway: '10.0.0.1',
          vlan: 0,
          enableGatewayDetection: false,
          enableIPConflictDetection: false,
        },
      ],
      routes: [
        { ifName: 'eth0', dst: '0.0.0.0/0', gw: '10.0.0.1' },
        { ifName: 'eth0', dst: '10.9.0.0/16', gw: '10.0.0.2' },
      ],
      dns: {},
    });
    const shown = await app.inject({ url: '/v1/workloadendpoint?podNamespace=default&podName=a' });
    const { interfaces, ...rest } = shown.json<{ interfaces: { ipv4: string; routes: unknown }[] }>();
    assert.deepEqual(rest, { podNamespace: 'default', podName: 'a', podUID: 'uid-a', node: 'node1' });
    assert.deepEqual([interfaces[0]?.ipv4, interfaces[0]?.routes], ['10.0.0.10/24', []]);
    assert.equal((await app.inject({ method: 'DELETE', url: '/v1/ipam/ip', payload: args })).statusCode, 200);
    assert.deepEqual(api.records('p'), {});
  });

  for (const [conflicts, gateways] of [
    [true, false],
    [false, true],
  ] as const)
    it(`leaves to the executable what the agent cannot ask: conflicts ${conflicts}, gateways ${gateways}`, async () => {
      const { api, app } = made(true, { deps: { detection: { conflicts, gateways, onConflict: () => undefined } } });
      const add = (payload: object) => app.inject({ method: 'POST', url: '/v1/ipam/ip', payload });
      const answer = await add({ ...args, netNamespace: '', defaultIPv4IPPool: ['p'] });
      const [ip] = answer.json<{ ips: Record<string, unknown>[] }>().ips;
      assert.deepEqual([ip?.['enableIPConflictDetection'], ip?.['enableGatewayDetection']], [conflicts, gateways]);
      api.addPod('b');
      const absent = { ...args, podName: 'b', podUID: 'uid-b', netNamespace: '/run/netns/not-there' };
      assert.equal(
        (await add({ ...absent, defaultIPv4IPPool: ['p'] })).statusCode,
        500,
        'the agent asks in a namespace',
      );
    });

  for (const [what, url, code] of [
    ['no endpoint', '/v1/workloadendpoint?podNamespace=default&podName=b', 404],
    ['no name', '/v1/workloadendpoint?podNamespace=default', 400],
  ] as const) {
    it(`answers ${code} for ${what}`, async () => assert.equal((await made().app.inject({ url })).statusCode, code));
  }

  it('answers a failure with 500 and a string', async () => {
    const payload = { ...args, defaultIPv4IPPool: ['nope'] };
    const answer = await made().app.inject({ method: 'POST', url: '/v1/ipam/ip', payload });
    assert.equal(answer.statusCode, 500);
    assert.match(answer.json<string>(), /failed to get original IPPool nope: .*not found/);
  });

  it('hands matchMasterSubnet on, with the interface and its namespace', async () => {
    const asked: unknown[] = [];
    const addresses = [parseIp('10.1.0.5')].flatMap((ip) => ip ?? []);
    const deps: TestAgentOptions['deps'] = {
      physicalFunctionOf: ({ netns, ifName }) => {
        asked.push({ netns, ifName });
        return { name: 'ens1f0', addresses };
      },
    };
    const payload = { ...args, defaultIPv4IPPool: ['p'], matchMasterSubnet: true };
    const answer = await made(true, { deps }).app.inject({ method: 'POST', url: '/v1/ipam/ip', payload });
    assert.equal(answer.statusCode, 500);
    assert.match(
      answer.json<string>(),
      /matchMasterSubnet: the subnet 10\.0\.0\.0\/24 of IPPool p contains no address of ens1f0/,
    );
    assert.deepEqual(asked, [{ netns: args.netNamespace, ifName: 'eth0' }]);
    const without = await made(true, { deps }).app.inject({
      ...{ method: 'POST', url: '/v1/ipam/ip' },
      payload: { ...payload, matchMasterSubnet: false },
    });
    assert.equal(without.statusCode, 200, without.body);
  });

  it('reads the body of GET /v1/coordinator/config', async () => {
    const payload = { podNamespace: 'default', podName: 'a' };
    const answer = await made().app.inject({ method: 'GET', url: '/v1/coordinator/config', payload });
    assert.equal(answer.json<{ mode: string }>().mode, 'a');
  });

  for (const [what, owner, enabled, isConflict, code] of [
    ['a stateless pod', 'Deployment', true, true, 200],
    ['a stateless pod, switched off', 'Deployment', false, true, 521],
    ['a StatefulSet’s pod', 'StatefulSet', true, true, 522],
    ['a StatefulSet’s pod without a conflict', 'StatefulSet', true, false, 200],
  ] as const) {
    it(`answers ${code} to the release of conflicting addresses of ${what} (C00018, C00019)`, async () => {
      const { api, app } = made(enabled);
      api.addPod('a', {
        ownerReferences: [{ apiVersion: 'apps/v1', kind: owner, name: 'o', uid: 'o', controller: true }],
      });
      await app.inject({ method: 'POST', url: '/v1/ipam/ip', payload: { ...args, defaultIPv4IPPool: ['p'] } });
      const payload = { ...args, podUID: '', isReleaseConflictIPs: isConflict };
      assert.equal((await app.inject({ method: 'DELETE', url: '/v1/ipam/ips', payload })).statusCode, code);
      assert.equal(Object.keys(api.records('p')).length, code === 200 ? 0 : 1);
      assert.equal(api.endpoints.size, code === 200 ? 0 : 1);
    });
  }

  it('serves a pod one call after the other: DEL waits for the ADD that its client gave up, other pods do not', async () => {
    let resume: () => void = () => undefined;
    let hold: Promise<void> | undefined = new Promise((resolve) => (resume = resolve));
    let reached: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (reached = resolve));
    const onStep: TestAgentOptions['onStep'] = (step, when) => {
      if (step !== 'create endpoint' || when !== 'before') return;
      const wait = hold;
      hold = undefined;
      reached();
      return wait;
    };
    const { api, app } = made(true, { onStep });
    api.addPod('b');
    const add = (podName: string) => {
      const payload = { ...args, podName, podUID: `uid-${podName}`, defaultIPv4IPPool: ['p'] };
      return app.inject({ method: 'POST', url: '/v1/ipam/ip', payload });
    };
    const first = add('a');
    await held;
    let isReturned = false;
    const returned = app.inject({ method: 'DELETE', url: '/v1/ipam/ip', payload: args }).then((answer) => {
      isReturned = true;
      return answer;
    });
    assert.equal((await add('b')).statusCode, 200);
    assert.equal(isReturned, false);
    resume();
    assert.deepEqual([(await first).statusCode, (await returned).statusCode], [200, 200]);
    assert.deepEqual(api.records('p'), { '10.0.0.11': 'default/b eth0' });
    assert.deepEqual([...api.endpoints.keys()], ['default/b']);
  });

  it('answers the probes by what is so', async () => {
    const probe = async (app: ReturnType<typeof made>['app'], name: string) =>
      (await app.inject({ url: `/v1/runtime/${name}` })).statusCode;
    const { app: well } = made();
    const { app: ill } = made(true, { deps: { notReady: () => 'the API server cannot be reached' } });
    for (const [name, code] of Object.entries({ startup: 500, readiness: 500, liveness: 200 })) {
      assert.equal(await probe(well, name), 200, name);
      assert.equal(await probe(ill, name), code, name);
    }
    const answer = await ill.inject({ url: '/v1/runtime/readiness' });
    assert.equal(answer.json<string>(), 'the API server cannot be reached');
  });
});
