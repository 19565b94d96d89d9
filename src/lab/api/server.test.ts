/** What the contract does not reach: restarts, the kubelet proxy, refused upgrades, limits of a request. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { configMap, pod } from '../contract/case.ts';
import { ContractClient } from '../contract/client.ts';
import { stringAt } from './json.ts';
import { startTestApiServer, type TestApiServer } from './testing.ts';

const clientOf = (server: TestApiServer): ContractClient =>
  new ContractClient({ url: server.url, caCert: server.credentials.caCert, token: server.credentials.token });

describe('restart', () => {
  test('objects, resourceVersions and watches go on where they were', async () => {
    const stateDir = mkdtempSync(join(tmpdir(), 'sluice-api-state-'));
    try {
      const first = await startTestApiServer({ stateDir });
      const before = clientOf(first);
      const made = await before.post('/api/v1/namespaces/default/configmaps', configMap('kept', { a: '1' }));
      const version = stringAt(made.body, 'metadata', 'resourceVersion') ?? '';
      await before.patch('/api/v1/namespaces/default/configmaps/kept', 'application/merge-patch+json', {
        data: { a: '2' },
      });
      before.close();
      await first.close();
      const second = await startTestApiServer({ stateDir, credentials: first.credentials });
      const after = clientOf(second);
      const kept = await after.get('/api/v1/namespaces/default/configmaps/kept');
      assert.equal(stringAt(kept.body, 'data', 'a'), '2');
      assert.ok(Number(stringAt(kept.body, 'metadata', 'resourceVersion')) > Number(version));
      const events = await after.watch(`/api/v1/namespaces/default/configmaps?resourceVersion=${version}`, 1);
      assert.deepEqual([events[0]?.type, stringAt(events[0], 'object', 'data', 'a')], ['MODIFIED', '2']);
      after.close();
      await second.close();
    } finally {
      rmSync(stateDir, { recursive: true, force: true });
    }
  });
});

interface Kubelet {
  readonly socketPath: string;
  readonly requests: string[];
  close(): Promise<void>;
}

/** Answers logs with text, and upgrades by echoing bytes. */
async function startKubelet(): Promise<Kubelet> {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-kubelet-'));
  const requests: string[] = [];
  const peers = new Set<Duplex>();
  const server: Server = createServer((request, response) => {
    requests.push(`${request.method ?? ''} ${request.url ?? ''}`);
    response.setHeader('content-type', 'text/plain');
    response.end('a line of log\n');
  });
  server.on('upgrade', (request, socket: Duplex) => {
    requests.push(`upgrade ${request.url ?? ''} authorization=${request.headers.authorization ?? 'none'}`);
    peers.add(socket);
    socket.on('error', () => undefined);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n');
    socket.pipe(socket);
  });
  const socketPath = join(dir, 'kubelet.sock');
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return {
    socketPath,
    requests,
    close: async () => {
      for (const peer of peers) peer.destroy();
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

interface Upgraded {
  readonly status: number;
  readonly socket?: Duplex;
  readonly body: string;
}

function upgrade(server: TestApiServer, path: string, protocol: string): Promise<Upgraded> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(new URL(path, server.url), {
      ca: server.credentials.caCert,
      headers: { authorization: `Bearer ${server.credentials.token}`, connection: 'Upgrade', upgrade: protocol },
    });
    request.on('upgrade', (response, socket) => resolve({ status: response.statusCode ?? 0, socket, body: '' }));
    request.on('response', (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString('utf8')));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    request.on('error', reject);
    request.end();
  });
}

describe('kubelet proxy', () => {
  test('logs, exec by WebSocket, and clear refusals', async () => {
    const kubelet = await startKubelet();
    const server = await startTestApiServer({
      kubeletSocket: (node) => (node === 'n1' ? kubelet.socketPath : undefined),
    });
    const client = clientOf(server);
    const pods = '/api/v1/namespaces/default/pods';
    try {
      const onNode = (name: string, nodeName: string, containers: string[]) => ({
        ...pod(name),
        spec: { nodeName, containers: containers.map((container) => ({ name: container, image: 'x' })) },
      });
      await client.post(pods, onNode('one', 'n1', ['main']));
      await client.post(pods, onNode('two', 'n1', ['a', 'b']));
      await client.post(pods, onNode('lost', 'n2', ['main']));
      await client.post(pods, pod('unscheduled'));
      assert.equal((await client.get(`${pods}/one/log?tailLines=5&follow=true`)).text, 'a line of log\n');
      assert.equal((await client.get(`${pods}/two/log?container=b`)).text, 'a line of log\n');
      assert.deepEqual(kubelet.requests, [
        'GET /containerLogs/default/one/main?tailLines=5&follow=true',
        'GET /containerLogs/default/two/b',
      ]);
      const ambiguous = await client.get(`${pods}/two/log`);
      assert.equal(ambiguous.body.message, 'a container name must be specified for pod two, choose one of: [a b]');
      assert.equal(
        (await client.get(`${pods}/two/log?container=c`)).body.message,
        'container c is not valid for pod two',
      );
      assert.equal((await client.get(`${pods}/unscheduled/log`)).text, '');
      assert.equal((await client.get(`${pods}/lost/log`)).status, 500);
      const { status, socket } = await upgrade(
        server,
        `${pods}/one/exec?command=ls&command=-l&stdout=true`,
        'websocket',
      );
      assert.equal(status, 101);
      const echoed = new Promise<string>((resolve) =>
        socket?.once('data', (chunk: Buffer) => resolve(chunk.toString('utf8'))),
      );
      socket?.write('ping');
      assert.equal(await echoed, 'ping');
      socket?.destroy();
      assert.equal(
        kubelet.requests.at(-1),
        'upgrade /exec/default/one/main?command=ls&command=-l&stdout=true authorization=none',
      );
      const spdy = await upgrade(server, `${pods}/one/exec?command=ls`, 'SPDY/3.1');
      assert.equal(spdy.status, 400);
      assert.match(spdy.body, /over WebSocket only/);
    } finally {
      client.close();
      await server.close();
      await kubelet.close();
    }
  });
});

describe('requests', () => {
  test('damaged and oversized bodies are refused; the server lives on', async () => {
    const server = await startTestApiServer();
    const client = clientOf(server);
    const path = '/api/v1/namespaces/default/configmaps';
    try {
      assert.equal((await client.post(path, 'text')).status, 400);
      assert.equal((await client.post(path, { ...configMap('kind'), kind: 'Secret' })).status, 400);
      const large = await client
        .post(path, configMap('large', { a: 'x'.repeat(3.5 * 1024 * 1024) }))
        .catch(() => undefined);
      // The connection may break before the answer is read: the rest of the body is never taken.
      assert.ok(large === undefined || large.status === 413);
      const protobuf = await client.call('POST', path, {
        body: {},
        contentType: 'application/vnd.kubernetes.protobuf',
      });
      assert.equal(protobuf.status, 415);
      assert.equal((await client.call('GET', path, { accept: 'text/html' })).status, 406);
      assert.equal((await client.get(path)).status, 200);
    } finally {
      client.close();
      await server.close();
    }
  });
});

test('close does not wait for a client that never ends its TLS handshake', { timeout: 30_000 }, async () => {
  const server = await startTestApiServer();
  const client = connect(Number(new URL(server.url).port), '127.0.0.1').on('error', () => undefined);
  await once(client, 'connect');
  await setImmediate();
  await server.close();
});
