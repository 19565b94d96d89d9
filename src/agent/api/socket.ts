/** The agent's API on its unix socket. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { listenPrivately, removeStaleSocket } from '../unix-socket.ts';

/** Closing the app closes the socket. Throws already_exists while another agent answers on it; `option` names the path. */
export async function listenAgentApi(app: FastifyInstance, path: string, option = '--agent-socket'): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  await removeStaleSocket(path, option);
  // Fastify closes only what it listens on itself.
  app.addHook('onClose', async () => {
    const closed = new Promise((resolve) => app.server.close(resolve));
    app.server.closeAllConnections();
    await closed;
  });
  await app.ready();
  await listenPrivately(app.server, path);
}
