/** A controller that cannot have its ports ends, so that whoever keeps it running tries again. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';
import { freePort } from '../src/lab/free-port.ts';
import { cliCommand } from '../src/lab/lifecycle/entry.ts';

let server: TestApiServer;
before(async () => {
  server = await startTestApiServer();
});
after(() => server.close());

/** Exit status and what it said; status null: it had to be killed. */
function controller(...ports: readonly string[]): Promise<{ status: number | null; said: string }> {
  const [file = '', ...args] = cliCommand();
  const all = [...args, 'controller', '--kubeconfig', server.kubeConfigPath, ...ports];
  return new Promise((resolve) => {
    const child = execFile(file, all, { timeout: 60_000, killSignal: 'SIGKILL' }, (_error, _stdout, said) =>
      resolve({ status: child.exitCode, said }),
    );
  });
}

describe('a controller whose port is taken', () => {
  for (const [flag, other] of [
    ['--webhook-port', '--health-port'],
    ['--health-port', '--webhook-port'],
  ] as const) {
    it(`ends and names ${flag}, though it has the other one`, async () => {
      const holder = createServer().listen(0, '127.0.0.1');
      await once(holder, 'listening');
      const { port } = holder.address() as AddressInfo;
      const { status, said } = await controller(flag, String(port), other, String(await freePort()));
      holder.close();
      assert.equal(status, 1, said);
      assert.match(said, new RegExp(`listen on 127\\.0\\.0\\.1:${port} \\(${flag}\\).*EADDRINUSE`));
    });
  }
});
