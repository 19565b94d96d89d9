/**
 * One agent per state directory: a name in the abstract socket namespace (unix(7)), which the kernel gives back when the
 * process ends, however it ends. Unlike a lock file it cannot be left behind.
 */
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { SluiceError } from '../core/error.ts';

export class InstanceLock {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Throws SluiceError already_exists while another process of this network namespace holds it. */
  static async acquire(stateDir: string): Promise<InstanceLock> {
    const hash = createHash('sha256').update(realpathSync(stateDir)).digest('hex').slice(0, 32);
    const server = createServer((socket) => socket.destroy());
    server.unref();
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        reject(cause.code === 'EADDRINUSE' ? held(stateDir) : cause),
      );
      server.listen(`\0sluice-agent-${hash}`, resolve);
    });
    return new InstanceLock(server);
  }

  release(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

function held(stateDir: string): SluiceError {
  return new SluiceError({
    code: 'already_exists',
    operation: 'lock state directory',
    object: stateDir,
    what: 'another agent runs with it',
    remedy: 'stop that agent first, or give this one another --state-dir',
  });
}
