import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { CniResult, PluginHandler } from '../api/cni.ts';
import { decodeWireAnswer, encodeWireRequest } from '../cni/wire.ts';
import { CniServer, type CniServerOptions } from './cni-server.ts';

const result: CniResult = { cniVersion: '1.0.0', interfaces: [], ips: [], routes: [], dns: {} };

describe('the CNI server', () => {
  let dir: string;
  let socketPath: string;
  let servers: CniServer[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-cni-'));
    socketPath = join(dir, 'run/cni.sock');
    servers = [];
  });
  afterEach(async () => {
    await Promise.all(servers.map((server) => server.stop(0)));
    rmSync(dir, { recursive: true, force: true });
  });

  async function listen(handler: PluginHandler, limits: CniServerOptions['limits'] = {}): Promise<CniServer> {
    const server = await CniServer.listen({
      socketPath,
      plugins: { sluice: handler },
      onAnswered: () => undefined,
      limits,
    });
    servers.push(server);
    return server;
  }

  function send(bytes: Buffer, path = socketPath): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      const socket = connect({ path, allowHalfOpen: true }, () => socket.end(bytes));
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('error', reject);
      socket.on('end', () => resolve(Buffer.concat(chunks)));
    });
  }

  async function call(command: string, containerId = 'c1') {
    const environment = { CNI_COMMAND: command, CNI_CONTAINERID: containerId, CNI_NETNS: '/x', CNI_IFNAME: 'eth0' };
    const stdin = JSON.stringify({ cniVersion: '1.0.0', name: 'n', type: 'sluice' });
    const { exitStatus, stdout } = decodeWireAnswer(
      await send(encodeWireRequest({ plugin: 'sluice', environment, stdin })),
    );
    return { exitStatus, body: (stdout === '' ? {} : JSON.parse(stdout)) as { code?: number; msg?: string } };
  }

  it('listens for root only', async () => {
    await listen(() => Promise.resolve(result));
    assert.equal(statSync(socketPath).mode & 0o777, 0o600);
    assert.equal((await call('ADD')).exitStatus, 0);
  });

  it('takes over the socket of a killed agent, not of a living one, and no other file', async () => {
    await listen(() => Promise.resolve(result));
    await assert.rejects(
      CniServer.listen({ socketPath, plugins: {}, onAnswered: () => undefined }),
      /another agent answers/,
    );
    const stale = join(dir, 'stale.sock');
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(join(dir, 'other.sock'), resolve));
    // What a killed process leaves: the name without a listener.
    const { linkSync } = await import('node:fs');
    linkSync(join(dir, 'other.sock'), stale);
    await new Promise((resolve) => holder.close(resolve));
    assert(existsSync(stale));
    const server = await CniServer.listen({ socketPath: stale, plugins: {}, onAnswered: () => undefined });
    servers.push(server);
    const file = join(dir, 'file');
    writeFileSync(file, '');
    await assert.rejects(
      CniServer.listen({ socketPath: file, plugins: {}, onAnswered: () => undefined }),
      /no socket is in the way/,
    );
    assert(existsSync(file));
  });

  it('runs one operation per container at a time, and containers side by side', async () => {
    const events: string[] = [];
    const release: (() => void)[] = [];
    await listen(async (request) => {
      events.push(`begin ${request.containerId}`);
      await new Promise<void>((resolve) => release.push(resolve));
      events.push(`end ${request.containerId}`);
      return result;
    });
    const calls = [call('ADD', 'a')];
    await until(() => events.length === 1);
    calls.push(call('DEL', 'a'), call('ADD', 'b'));
    await until(() => events.length === 2);
    assert.deepEqual(events, ['begin a', 'begin b']);
    release.splice(0).forEach((go) => go());
    await until(() => release.length === 1);
    release.splice(0).forEach((go) => go());
    for (const { exitStatus } of await Promise.all(calls)) assert.equal(exitStatus, 0);
    assert.deepEqual(events.slice(-2), ['begin a', 'end a']);
  });

  it('answers "try again" when too many wait', async () => {
    const release: (() => void)[] = [];
    await listen(() => new Promise((resolve) => release.push(() => resolve(result))), {
      cniConcurrency: 1,
      cniQueue: 1,
    });
    const first = call('ADD', 'a');
    await until(() => release.length === 1);
    const second = call('ADD', 'b');
    await until(async () => (await call('ADD', 'c')).body.code === 11);
    release[0]?.();
    await until(() => release.length === 2);
    release[1]?.();
    assert.deepEqual(
      (await Promise.all([first, second])).map((answer) => answer.exitStatus),
      [0, 0],
    );
  });

  it("answers for an operation that overruns its deadline, and keeps the container's turn", async () => {
    let release: (() => void) | undefined;
    let running = 0;
    await listen(
      async () => {
        assert.equal(++running, 1);
        await new Promise<void>((resolve) => (release = resolve));
        running--;
        return result;
      },
      { cniOperationMs: 30 },
    );
    assert.match((await call('ADD')).body.msg ?? '', /took too long/);
    const second = call('DEL');
    assert.match((await second).body.msg ?? '', /took too long/);
    assert.equal(running, 1);
    release?.();
    await until(() => running === 1 && release !== undefined);
    release?.();
  });

  it('refuses what is too large or no request', async () => {
    await listen(() => Promise.resolve(result), { cniRequestBytes: 1000 });
    assert.match((await send(Buffer.alloc(5000, 'x'))).toString(), /larger than 1000 bytes/);
    assert.match((await send(Buffer.from('GET / HTTP/1.1\r\n\r\n'))).toString(), /malformed request/);
  });

  it('finishes what runs when it stops, and removes its socket', async () => {
    let finish: (() => void) | undefined;
    const server = await listen(() => new Promise((resolve) => (finish = () => resolve(result))));
    const pending = call('ADD');
    await until(() => finish !== undefined);
    const stopped = server.stop();
    await assert.rejects(call('ADD', 'late'));
    finish?.();
    assert.equal((await pending).exitStatus, 0);
    await stopped;
    assert(!existsSync(socketPath));
  });
});

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail('it did not come about');
}
