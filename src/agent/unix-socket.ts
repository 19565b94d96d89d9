/** Unix sockets that their owner alone may use. */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { SluiceError } from '../core/error.ts';

/** Mode 0600 from the first moment: bind(2) happens inside listen(), under a umask that leaves nothing to others. */
export function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        chmodSync(path, 0o600);
        server.removeListener('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
}

/**
 * A socket nobody listens on is left from a killed agent; anything else that is there is not ours to remove. Throws
 * already_exists; `option` is the one that names the path.
 */
export async function removeStaleSocket(path: string, option: string): Promise<void> {
  let isSocket: boolean;
  try {
    isSocket = lstatSync(path).isSocket();
  } catch {
    return;
  }
  if (!isSocket) {
    throw occupied(path, 'a file that is no socket is in the way', `remove it or choose another ${option}`);
  }
  if (await answers(path)) throw occupied(path, 'another agent answers on it', 'stop that agent first');
  unlinkSync(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    // EAGAIN: somebody listens and is overrun.
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EAGAIN'));
  });
}

function occupied(path: string, what: string, remedy: string): SluiceError {
  return new SluiceError({ code: 'already_exists', operation: 'listen on socket', object: path, what, remedy });
}
