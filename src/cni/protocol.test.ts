import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { cniVersions, type CniRequest, type CniResult, type PluginHandler } from '../api/cni.ts';
import { SluiceError } from '../core/error.ts';
import { CniError } from './error.ts';
import { invokePlugin } from './invoke.ts';
import { formatResult, parseResult } from './result.ts';
import { decodeWireAnswer, decodeWireRequest, encodeWireAnswer, encodeWireRequest } from './wire.ts';

const environment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c0ffee',
  CNI_NETNS: '/run/netns/x',
  CNI_IFNAME: 'eth0',
  CNI_ARGS: 'K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web-1;IgnoreUnknown=1;X=a=b',
  CNI_PATH: '/opt/cni/bin',
};
const config = { cniVersion: '1.0.0', name: 'spidernet-chainer', type: 'sluice' };

const unused: PluginHandler = () => Promise.reject(new Error('the plugin must not be reached'));

/** One call; answers what the plugin saw and what the runtime would get. */
async function call(env: Record<string, string>, stdin: unknown, handler: PluginHandler = unused) {
  const text = typeof stdin === 'string' ? stdin : JSON.stringify(stdin);
  const { answer } = await invokePlugin(
    { plugin: 'sluice', environment: env, stdin: text },
    { sluice: handler },
    new AbortController().signal,
  );
  const body = answer.stdout === '' ? undefined : (JSON.parse(answer.stdout) as Record<string, unknown>);
  return { status: answer.exitStatus, body };
}

async function seenRequest(env: Record<string, string>, stdin: unknown): Promise<CniRequest> {
  let seen: CniRequest | undefined;
  const { status, body } = await call(env, stdin, (request) => {
    seen = request;
    return Promise.resolve(parseResult({}, request.config.cniVersion));
  });
  assert.equal(status, 0, JSON.stringify(body));
  assert(seen !== undefined);
  return seen;
}

describe('CNI requests', () => {
  it('takes environment, arguments and configuration apart', async () => {
    const request = await seenRequest(environment, { ...config, custom: { kept: true } });
    assert.equal(request.command, 'ADD');
    assert.equal(request.containerId, 'c0ffee');
    assert.equal(request.netns, '/run/netns/x');
    assert.deepEqual(request.args, {
      K8S_POD_NAMESPACE: 'demo',
      K8S_POD_NAME: 'web-1',
      IgnoreUnknown: '1',
      X: 'a=b',
    });
    assert.deepEqual(request.config['custom'], { kept: true });
  });

  it('accepts a DEL without netns and with a previous result it cannot read', async () => {
    const { CNI_NETNS: _, ...env } = { ...environment, CNI_COMMAND: 'DEL' };
    const request = await seenRequest(env, { ...config, prevResult: { ips: [{ address: 7 }] } });
    assert.equal(request.netns, undefined);
    assert.equal(request.config.prevResult, undefined);
  });

  it('reads valid attachments for GC under both of their names', async () => {
    const attachments = [{ containerID: 'a', ifname: 'eth0' }];
    for (const key of ['cni.dev/valid-attachments', 'cni.dev/attachments']) {
      const request = await seenRequest({ CNI_COMMAND: 'GC' }, { ...config, cniVersion: '1.1.0', [key]: attachments });
      assert.deepEqual(request.config['cni.dev/valid-attachments'], attachments, key);
    }
  });

  const wrong: [string, Record<string, string>, unknown, number, RegExp][] = [
    ['unknown command', { ...environment, CNI_COMMAND: 'PING' }, config, 4, /CNI_COMMAND.*PING/],
    ['no container id', { ...environment, CNI_CONTAINERID: '' }, config, 4, /CNI_CONTAINERID.*missing/],
    ['container id with a slash', { ...environment, CNI_CONTAINERID: '../x' }, config, 4, /CNI_CONTAINERID/],
    ['interface name too long', { ...environment, CNI_IFNAME: 'x'.repeat(16) }, config, 4, /CNI_IFNAME/],
    ['interface name ".."', { ...environment, CNI_IFNAME: '..' }, config, 4, /CNI_IFNAME/],
    ['ADD without netns', { ...environment, CNI_NETNS: '' }, config, 4, /CNI_NETNS/],
    ['arguments without "="', { ...environment, CNI_ARGS: 'x' }, config, 4, /CNI_ARGS/],
    ['no JSON', environment, '{', 6, /decode/],
    ['JSON that is no object', environment, '[]', 6, /not a JSON object/],
    ['no version', environment, { name: 'n', type: 't' }, 1, /incompatible/],
    ['version 0.2.0', environment, { ...config, cniVersion: '0.2.0' }, 1, /incompatible/],
    ['version 2.0.0', environment, { ...config, cniVersion: '2.0.0' }, 1, /incompatible/],
    ['CHECK before 0.4.0', { ...environment, CNI_COMMAND: 'CHECK' }, { ...config, cniVersion: '0.3.1' }, 1, /CHECK/],
    ['GC before 1.1.0', { CNI_COMMAND: 'GC' }, config, 1, /GC/],
    ['STATUS before 1.1.0', { CNI_COMMAND: 'STATUS' }, config, 1, /STATUS/],
    ['no network name', environment, { cniVersion: '1.0.0', type: 't' }, 7, /name/],
    ['a network name with a blank', environment, { ...config, name: 'a b' }, 7, /name/],
    [
      'a result with a bad address',
      environment,
      { ...config, prevResult: { ips: [{}] } },
      7,
      /prevResult\.ips\.0\.address/,
    ],
    [
      'a rate that is no number',
      environment,
      { ...config, runtimeConfig: { bandwidth: { egressRate: 'x' } } },
      7,
      /egressRate/,
    ],
  ];
  for (const [name, env, stdin, code, message] of wrong) {
    it(`refuses ${name} with code ${code}`, async () => {
      const { status, body } = await call(env, stdin);
      assert.equal(status, 1);
      assert.equal(body?.['code'], code);
      assert.match(String(body?.['msg']), message);
    });
  }
});

describe('CNI answers', () => {
  const versioned: CniResult = {
    cniVersion: '1.1.0',
    interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/x', mtu: 1500, vendor: 1 }],
    ips: [{ address: '172.51.0.102/16', gateway: '172.51.0.1', interface: 0 }, { address: 'fd00::2/64' }],
    routes: [{ dst: '0.0.0.0/0', gw: '172.51.0.1', table: 7 }],
    dns: {},
    extra: 'kept',
  };

  for (const version of cniVersions) {
    it(`writes ${version} and reads it back`, () => {
      const text = formatResult(versioned, version);
      const of04 = version.startsWith('0.');
      assert.equal(text['cniVersion'], version);
      assert.equal(text['extra'], 'kept');
      const ips = text['ips'] as { version?: string }[];
      assert.deepEqual(
        ips.map((ip) => ip.version),
        of04 ? ['4', '6'] : [undefined, undefined],
      );
      const [iface] = text['interfaces'] as Record<string, unknown>[];
      assert.equal(iface?.['mtu'], version === '1.1.0' ? 1500 : undefined);
      assert.equal(iface?.['vendor'], 1);
      const again = parseResult(text, version);
      assert.deepEqual(again.ips, versioned.ips);
      assert.deepEqual(formatResult(again, version), text);
    });

    it(`passes a ${version} previous result on whole`, async () => {
      const prevResult = { ...formatResult(versioned, version), unknown: { deep: [1, null, 'x'] } };
      const { body } = await call(environment, { ...config, cniVersion: version, prevResult }, (request) =>
        Promise.resolve(request.config.prevResult),
      );
      assert.deepEqual(body, prevResult);
    });
  }

  it('keeps 1.1.0 keys that an older previous result already carried', () => {
    const early = parseResult({ cniVersion: '1.0.0', interfaces: [{ name: 'eth0', mtu: 9000 }] }, '1.0.0');
    assert.deepEqual(formatResult(early, '1.0.0')['interfaces'], [{ name: 'eth0', mtu: 9000 }]);
  });

  it('answers VERSION with the version it was asked in', async () => {
    const { status, body } = await call({ CNI_COMMAND: 'VERSION' }, { cniVersion: '0.4.0' });
    assert.equal(status, 0);
    assert.deepEqual(body, { cniVersion: '0.4.0', supportedVersions: [...cniVersions] });
  });

  const failures: [string, Error, number, string][] = [
    ['a CNI error', new CniError(3, 'gone', 'why'), 3, 'why'],
    ['an unreachable API', kubeError('kube_unreachable'), 11, 'wait'],
    ['an exhausted pool', kubeError('ipam_exhausted'), 100, 'wait'],
    ['a bug', new TypeError('x is not a function'), 999, ''],
  ];
  for (const [name, error, code, details] of failures) {
    it(`answers ${name} with code ${code} in the configuration's version`, async () => {
      const { status, body } = await call(environment, { ...config, cniVersion: '0.4.0' }, () => Promise.reject(error));
      assert.equal(status, 1);
      assert.equal(body?.['cniVersion'], '0.4.0');
      assert.equal(body?.['code'], code);
      assert.equal(body?.['details'] ?? '', details);
    });
  }

  it('refuses a plugin name it does not serve', async () => {
    const wire = { plugin: 'constructor', environment, stdin: JSON.stringify(config) };
    const { answer } = await invokePlugin(wire, { sluice: unused }, new AbortController().signal);
    assert.match(answer.stdout, /unknown plugin/);
  });
});

describe('the wire between shim and agent', () => {
  it('round-trips requests and answers', () => {
    const request = { plugin: 'sluice', environment: { CNI_ARGS: 'a=b;ü=\n' }, stdin: '{"ü":\u00001}' };
    assert.deepEqual(decodeWireRequest(encodeWireRequest(request)), request);
    const answer = { exitStatus: 1, stdout: '\n{"ü":1}' };
    assert.deepEqual(decodeWireAnswer(Buffer.concat([Buffer.from('\n\n'), encodeWireAnswer(answer)])), answer);
  });

  for (const bytes of [
    '',
    'SLUICE/2 x\n\0',
    'SLUICE/1 \n\0',
    'SLUICE/1 a b\n\0',
    'SLUICE/1 x\nCNI_A=1',
    'SLUICE/1 x\nCNI_A\0\0',
  ]) {
    it(`refuses the request ${JSON.stringify(bytes)}`, () => {
      assert.throws(() => decodeWireRequest(Buffer.from(bytes)), { code: 6 });
    });
  }
  for (const bytes of ['', '\n', '0\n{}', '0 3\n{}', 'x 0\n']) {
    it(`refuses the answer ${JSON.stringify(bytes)}`, () => {
      assert.throws(() => decodeWireAnswer(Buffer.from(bytes)), { code: 6 });
    });
  }
});

function kubeError(code: 'kube_unreachable' | 'ipam_exhausted'): SluiceError {
  return new SluiceError({ code, operation: 'get', object: 'pod demo/web-1', what: 'no', remedy: 'wait' });
}
