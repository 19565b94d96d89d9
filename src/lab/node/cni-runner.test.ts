import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { bandwidthCapability, parseNetworkList } from './cni-config.ts';
import { CniRunner } from './cni-runner.ts';

/** A plugin that appends what it was called with to a file, and answers with a result that names it. */
const recordingPlugin = `#!/bin/sh
name=\${0##*/}
input=$(cat)
printf '%s %s %s %s\\n' "$CNI_COMMAND" "$name" "$CNI_ARGS" "$input" >> "$CALLS"
[ "$name" != broken ] || { echo '{"cniVersion":"1.0.0","code":7,"msg":"bad master","details":"ens9 does not exist"}'; exit 1; }
[ "$name" != mute ] || { echo oops >&2; exit 3; }
[ "$name" != slow ] || exec sleep 60
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","by":"'"$name"'"}'
`;

interface Call {
  readonly command: string;
  readonly plugin: string;
  readonly args: string;
  readonly input: Record<string, unknown>;
}

describe('running a CNI chain', () => {
  let dir = '';
  let runner: CniRunner;
  const request = {
    containerId: 'c1',
    netns: '/run/netns/x',
    ifName: 'eth0',
    args: { IgnoreUnknown: '1', K8S_POD_NAME: 'web' },
  };

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-cni-'));
    mkdirSync(join(dir, 'bin'));
    for (const name of ['first', 'second', 'broken', 'mute', 'slow']) {
      writeFileSync(join(dir, 'bin', name), recordingPlugin);
      chmodSync(join(dir, 'bin', name), 0o755);
    }
    const env = { PATH: '/usr/bin:/bin', CALLS: join(dir, 'calls') };
    runner = new CniRunner({ binDirs: [join(dir, 'none'), join(dir, 'bin')], env, timeoutMs: 400 });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const list = (...types: string[]) =>
    parseNetworkList(
      JSON.stringify({
        cniVersion: '1.0.0',
        name: 'net',
        plugins: types.map((type) => ({ type, capabilities: { bandwidth: type === 'second' } })),
      }),
      'test',
      'net',
    );

  function takeCalls(): Call[] {
    const text = readFileSync(join(dir, 'calls'), 'utf8');
    rmSync(join(dir, 'calls'));
    return text
      .trim()
      .split('\n')
      .map((line) => {
        const [command = '', plugin = '', args = '', ...input] = line.split(' ');
        return { command, plugin, args, input: JSON.parse(input.join(' ')) as Record<string, unknown> };
      });
  }

  it('hands each result on as prevResult and gives capabilities only to plugins that declare them', async () => {
    const runtime = { bandwidth: bandwidthCapability({ 'kubernetes.io/egress-bandwidth': '10M' }) };
    const result = await runner.add(list('first', 'second'), { ...request, runtime });
    assert.deepEqual(result, { cniVersion: '1.0.0', by: 'second' });
    const [first, second] = takeCalls();
    assert.equal(first?.args, 'IgnoreUnknown=1;K8S_POD_NAME=web');
    assert.equal(first.input['prevResult'], undefined);
    assert.equal(first.input['runtimeConfig'], undefined);
    assert.deepEqual(second?.input['prevResult'], { cniVersion: '1.0.0', by: 'first' });
    assert.deepEqual(second.input['runtimeConfig'], {
      bandwidth: { egressRate: 10_000_000, egressBurst: 4_294_967_295 },
    });
    assert.deepEqual([second.input['name'], second.input['cniVersion']], ['net', '1.0.0']);
  });

  it('deletes in reverse order with the cached result', async () => {
    await runner.del(list('first', 'second'), request, { cached: true });
    const calls = takeCalls();
    assert.deepEqual(
      calls.map(({ command, plugin }) => `${command} ${plugin}`),
      ['DEL second', 'DEL first'],
    );
    assert.deepEqual(
      calls.map(({ input }) => input['prevResult']),
      [{ cached: true }, { cached: true }],
    );
  });

  it('stops at the plugin that fails and says what it said', async () => {
    await assert.rejects(runner.add(list('broken', 'second'), request), {
      message: 'plugin type="broken" failed (add): bad master; ens9 does not exist',
    });
    assert.equal(takeCalls().length, 1);
  });

  it('reports stderr of a plugin that dies without an error object', async () => {
    await assert.rejects(runner.del(list('mute'), request, undefined), {
      message: 'plugin type="mute" failed (del): oops (exit status 3)',
    });
    takeCalls();
  });

  it('kills a plugin that takes too long', async () => {
    await assert.rejects(
      runner.add(list('slow'), request),
      /plugin type="slow" failed \(add\): no answer within 400 ms/,
    );
    takeCalls();
  });

  it('names a plugin that is not installed and where it looked', async () => {
    await assert.rejects(runner.add(list('absent'), request), /failed to find plugin "absent" in path \[.*none.*bin\]/);
  });
});

describe('bandwidth annotations', () => {
  it('are refused when they are no quantity or out of bounds', () => {
    assert.throws(() => bandwidthCapability({ 'kubernetes.io/ingress-bandwidth': 'fast' }), /"fast" is not a quantity/);
    assert.throws(() => bandwidthCapability({ 'kubernetes.io/ingress-bandwidth': '10' }), /not between 1k and 1P/);
    assert.equal(bandwidthCapability({}), undefined);
  });
});

describe('network configurations', () => {
  it('may be one plugin', () => {
    assert.deepEqual(parseNetworkList('{"type":"macvlan"}', 'NAD a/b', 'b').plugins, [{ type: 'macvlan' }]);
  });
  for (const [text, message] of [
    ['', /configuration is empty/],
    ['{', /is not JSON/],
    ['[]', /not a JSON object/],
    ['{"plugins":[]}', /plugins is empty/],
    ['{"plugins":[{}]}', /plugins\[0\]\.type is missing/],
    ['{"type":"../x"}', /a path/],
  ] as const) {
    it(`refuses ${text === '' ? 'nothing' : text}`, () => {
      assert.throws(() => parseNetworkList(text, 'NAD a/b', 'b'), message);
    });
  }
});
