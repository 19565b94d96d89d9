/** A port for a process that is told its port before it starts, and keeps it over its restarts. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { SluiceError } from '../core/error.ts';

const attempts = 50;
const firstUnprivileged = 10_000;

/**
 * Free on 127.0.0.1, and below those that the kernel gives to outgoing connections: one of these would soon have it, and keep it as
 * long as it lasts. Another process may still take it first; whoever listens then says so.
 */
export async function freePort(): Promise<number> {
  const [lowest = 32_768] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/).map(Number);
  for (let attempt = 0; attempt < attempts; attempt++) {
    // Where those begin so low, any must do.
    const port = lowest > firstUnprivileged + attempts ? randomInt(firstUnprivileged, lowest) : 0;
    const taken = await listenOnce(port);
    if (taken !== undefined) return taken;
  }
  throw new SluiceError({
    code: 'lab_failed',
    operation: 'find',
    object: 'a free port',
    what: `${attempts} of 127.0.0.1 below ${lowest} are in use`,
    remedy: 'end what listens on so many',
  });
}

/** The port; undefined when somebody has it. */
async function listenOnce(port: number): Promise<number | undefined> {
  const server = createServer();
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening');
  } catch {
    return undefined;
  }
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' ? address?.port : undefined;
}
