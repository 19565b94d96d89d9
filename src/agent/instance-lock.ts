/**
 * One agent per state directory, per bpffs directory and per CNI socket. Two kinds of locks, both given back by the kernel
 * when the process ends, however it ends:
 *
 *   a name in the abstract socket namespace (unix(7)), made from the path: holds although somebody removes the directory
 *   flock(2) on the directory: holds across network namespaces, and whatever path leads to the directory
 */
import { createHash } from 'node:crypto';
import { closeSync, constants, mkdirSync, openSync, realpathSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { SluiceError } from '../core/error.ts';
import { tryLockFile } from '../kernel/index.ts';

export interface InstancePlaces {
  readonly stateDir: string;
  /** On a mounted bpffs; made if absent. */
  readonly bpffsDir: string;
  readonly cniSocketPath: string;
}

export class InstanceLock {
  readonly #servers: Server[] = [];
  readonly #fds: number[] = [];

  /** Throws SluiceError already_exists while another agent holds one of them; nothing of that agent's is touched. */
  static async acquire(places: InstancePlaces): Promise<InstanceLock> {
    const lock = new InstanceLock();
    try {
      await lock.#lockDirectory('state directory', places.stateDir, '--state-dir');
      await lock.#lockDirectory('bpffs directory', places.bpffsDir, '--bpffs');
      const socketDir = dirname(places.cniSocketPath);
      mkdirSync(socketDir, { recursive: true, mode: 0o755 });
      const socketPath = join(realpathSync(socketDir), basename(places.cniSocketPath));
      await lock.#lockName('CNI socket', socketPath, '--cni-socket');
      return lock;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  async release(): Promise<void> {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
    await Promise.all(
      this.#servers.splice(0).map((server) => new Promise<void>((resolve) => server.close(() => resolve()))),
    );
  }

  async #lockDirectory(what: string, dir: string, flag: string): Promise<void> {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    await this.#lockName(what, realpathSync(dir), flag);
    const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
    this.#fds.push(fd);
    if (!tryLockFile(fd, dir)) throw held(what, dir, flag);
  }

  async #lockName(what: string, path: string, flag: string): Promise<void> {
    const hash = createHash('sha256').update(path).digest('hex').slice(0, 32);
    const server = createServer((socket) => socket.destroy());
    server.unref();
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        reject(cause.code === 'EADDRINUSE' ? held(what, path, flag) : cause),
      );
      server.listen(`\0sluice-agent-${hash}`, resolve);
    });
    this.#servers.push(server);
  }
}

function held(what: string, path: string, flag: string): SluiceError {
  return new SluiceError({
    code: 'already_exists',
    operation: `lock ${what}`,
    object: path,
    what: 'another agent runs with it',
    remedy: `stop that agent first, or give this one another ${flag}`,
  });
}
