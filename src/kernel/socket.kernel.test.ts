/** Sockets, captures and sysctls inside another network namespace. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { listenTcp } from './listen.ts';
import { RtNetlink } from './netlink/rtnetlink.ts';
import { createNamedNetns, removeNamedNetns } from './netns.ts';
import { PacketCapture } from './packet-capture.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';

describe('sockets in another netns', () => {
  const path = `/run/netns/sluice-sock-${randomBytes(4).toString('hex')}`;

  before(() => {
    createNamedNetns(path);
    using rt = RtNetlink.open(path);
    rt.setLink(rt.mustLink('lo').ifindex, { up: true });
  });

  after(() => {
    removeNamedNetns(path);
  });

  it('a Node server answers inside, and a capture sees its packets', async () => {
    const { fd, port } = listenTcp(path, '127.0.0.1', 0);
    const server = createServer((socket) => socket.end('hello from the other side\n'));
    server.listen({ fd });
    await once(server, 'listening');
    using capture = PacketCapture.open(path, 'lo');
    const child = execFileAsync('nsenter', [
      `--net=${path}`,
      'bash',
      '-c',
      `timeout 5 cat </dev/tcp/127.0.0.1/${port}`,
    ]);
    assert.equal(await child, 'hello from the other side\n');
    assert.ok(capture.drain(100).some((frame) => Buffer.from(frame).includes('hello from the other side')));
    server.close();
    assert.throws(
      () => execFileSync('bash', ['-c', `exec 3<>/dev/tcp/127.0.0.1/${port}`], { stdio: 'ignore' }),
      'the port must not be open outside',
    );
  });

  it('sysctls are those of the netns', () => {
    assert.equal(writeSysctl(path, 'net.ipv4.ip_forward', '1'), true);
    assert.equal(readSysctl(path, 'net.ipv4.ip_forward'), '1');
    assert.equal(writeSysctl(path, 'net.ipv4.no_such_key', '1'), false);
  });
});

async function execFileAsync(command: string, args: readonly string[]): Promise<string> {
  const { execFile } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    execFile(command, args, (error, stdout) => (error === null ? resolve(stdout) : reject(new Error(error.message))));
  });
}
