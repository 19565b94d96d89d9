import assert from 'node:assert/strict';
import { spawn, execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cniVersions } from '../api/cni.ts';
import { decodeWireRequest, encodeWireAnswer, type WireRequest } from './wire.ts';

const shimDir = fileURLToPath(new URL('../../shim', import.meta.url));
const config = { cniVersion: '0.4.0', name: 'n', type: 't' };

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly elapsedMs: number;
}

describe('the CNI executable', () => {
  let dir: string;
  let socketPath: string;
  let server: Server | undefined;

  before(() => {
    execFileSync('make', ['-s', '-C', shimDir], { stdio: 'inherit' });
    assert(existsSync(join(shimDir, 'build/sluice')));
    dir = mkdtempSync(join(tmpdir(), 'sluice-shim-'));
    socketPath = join(dir, 'cni.sock');
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  function run(plugin: string, command: string, stdin: string, socket = socketPath): Promise<Ended> {
    const started = performance.now();
    const env = { CNI_COMMAND: command, CNI_ARGS: 'K=v;L=w', SLUICE_CNI_SOCKET: socket, HOME: '/' };
    const child = spawn(join(shimDir, 'build', plugin), { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stdin.on('error', () => undefined); // a refused configuration is not read to its end
    child.stdin.end(stdin);
    return new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (status) =>
        resolve({ status, stdout: Buffer.concat(chunks).toString(), elapsedMs: performance.now() - started }),
      );
    });
  }

  async function withAgent<T>(
    onRequest: (request: WireRequest, socket: Socket) => void,
    body: () => Promise<T>,
  ): Promise<T> {
    server = createServer({ allowHalfOpen: true }, (socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('error', () => undefined);
      socket.on('end', () => onRequest(decodeWireRequest(Buffer.concat(chunks)), socket));
    });
    await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
    try {
      return await body();
    } finally {
      await new Promise((resolve) => server?.close(resolve));
    }
  }

  for (const plugin of ['sluice', 'cilium-cni', 'spiderpool', 'coordinator']) {
    it(`hands ${plugin}'s environment and stdin over and prints the answer`, async () => {
      const seen: WireRequest[] = [];
      const ended = await withAgent(
        (request, socket) => {
          seen.push(request);
          socket.write('\n');
          socket.end(encodeWireAnswer({ exitStatus: 3, stdout: '{"ü":1}' }));
        },
        () => run(plugin, 'ADD', JSON.stringify(config)),
      );
      assert.equal(ended.status, 3);
      assert.equal(ended.stdout, '{"ü":1}');
      assert.deepEqual(seen, [
        { plugin, environment: { CNI_COMMAND: 'ADD', CNI_ARGS: 'K=v;L=w' }, stdin: JSON.stringify(config) },
      ]);
    });
  }

  it('carries a configuration and an answer of megabytes', async () => {
    const big = JSON.stringify({ ...config, filler: 'x'.repeat(3_000_000) });
    const ended = await withAgent(
      (request, socket) => void socket.end(encodeWireAnswer({ exitStatus: 0, stdout: request.stdin })),
      () => run('sluice', 'ADD', big),
    );
    assert.equal(ended.status, 0);
    assert.equal(ended.stdout, big);
  });

  it('refuses a configuration beyond the limit with code 5', async () => {
    const ended = await run('sluice', 'ADD', `{"cniVersion":"0.3.1","x":"${'x'.repeat(5_000_000)}"}`);
    assertError(ended, 5, '0.3.1', /too large/);
  });

  it('answers VERSION with no agent', async () => {
    const ended = await run('spiderpool', 'VERSION', '{"cniVersion":"1.0.0"}', join(dir, 'none'));
    assert.equal(ended.status, 0);
    assert.deepEqual(JSON.parse(ended.stdout), { cniVersion: '1.0.0', supportedVersions: [...cniVersions] });
  });

  it('takes the outermost cniVersion, not one inside another object or value', async () => {
    const text =
      '{"prevResult":{"cniVersion":"9.9.9"},"note":"cniVersion","a\\"b":["cniVersion"],"cniVersion" : "0.3.1"}';
    const ended = await run('sluice', 'VERSION', text);
    assert.equal((JSON.parse(ended.stdout) as { cniVersion: string }).cniVersion, '0.3.1');
  });

  it('says "try again" within 10 s when there is no agent', async () => {
    const ended = await run('sluice', 'ADD', JSON.stringify(config), join(dir, 'no"ne'));
    assertError(ended, 11, '0.4.0', /agent is not running/);
    assert(ended.elapsedMs < 10_000);
  });

  it('lets DEL succeed when there is no agent, and only then', async () => {
    const text = JSON.stringify(config);
    const plugins = ['sluice', 'spiderpool', 'coordinator'];
    const ended = await Promise.all(plugins.map((plugin) => run(plugin, 'DEL', text, join(dir, 'none'))));
    for (const { status, stdout } of ended) assert.deepEqual([status, stdout], [0, '']);
    const refused = await withAgent(
      (_, socket) => socket.destroy(),
      () => run('sluice', 'DEL', text),
    );
    assertError(refused, 11, '0.4.0', /agent/);
    const down = encodeWireAnswer({ exitStatus: 1, stdout: '{"code":11}' });
    const failed = await withAgent(
      (_, socket) => void socket.end(down),
      () => run('sluice', 'DEL', text),
    );
    assert.deepEqual([failed.status, failed.stdout], [1, '{"code":11}'], 'what the agent answers counts');
  });

  it('says "try again" within 10 s when the agent accepts but never answers', async () => {
    const sockets: Socket[] = [];
    const ended = await withAgent(
      (_, socket) => void sockets.push(socket),
      () => run('sluice', 'ADD', JSON.stringify(config)).finally(() => sockets.forEach((s) => s.destroy())),
    );
    assertError(ended, 11, '0.4.0', /does not answer/);
    assert(ended.elapsedMs < 10_000);
  });

  it('waits longer for an agent that said it is working', async () => {
    const ended = await withAgent(
      (_, socket) => {
        socket.write('\n');
        setTimeout(() => socket.end(encodeWireAnswer({ exitStatus: 0, stdout: '{}' })), 8_500);
      },
      () => run('sluice', 'ADD', JSON.stringify(config)),
    );
    assert.equal(ended.status, 0, ended.stdout);
  });

  it('says STATUS 50 at once when there is no agent', async () => {
    const ended = await run('sluice', 'STATUS', '{"cniVersion":"1.1.0"}', join(dir, 'none'));
    assertError(ended, 50, '1.1.0', /agent is not running/);
  });

  const broken: [string, string, RegExp][] = [
    ['nothing', '', /without an answer/],
    ['an acknowledgement only', '\n', /stopped while/],
    ['a cut answer', '0 20\n{"cniVer', /cut short/],
    ['no status line', 'hello', /malformed/],
  ];
  for (const [name, bytes, message] of broken) {
    it(`says "try again" when the agent dies having sent ${name}`, async () => {
      const ended = await withAgent(
        (_, socket) => void socket.end(bytes),
        () => run('sluice', 'DEL', JSON.stringify(config)),
      );
      assertError(ended, 11, '0.4.0', message);
    });
  }

  it('reaches an agent that comes back within seconds', async () => {
    const pending = run('sluice', 'ADD', JSON.stringify(config));
    await new Promise((resolve) => setTimeout(resolve, 400));
    const ended = await withAgent(
      (_, socket) => void socket.end(encodeWireAnswer({ exitStatus: 0, stdout: 'back' })),
      () => pending,
    );
    assert.equal(ended.stdout, 'back');
  });
});

function assertError(ended: Ended, code: number, version: string, message: RegExp): void {
  assert.equal(ended.status, 1, ended.stdout);
  const error = JSON.parse(ended.stdout) as { cniVersion: string; code: number; msg: string };
  assert.equal(error.code, code);
  assert.equal(error.cniVersion, version);
  assert.match(error.msg, message);
}
