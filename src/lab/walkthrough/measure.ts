/** Probes between two pods: bulk TCP, echo requests, one TCP connection. Each runs inside the pods and reports what arrived. */
import { SluiceError } from '../../core/error.ts';
import type { Cluster, PodRef, PodView } from './cluster.ts';

/** TCP goodput from `client` to `server` in Mbit/s, counted at the receiver, without the first second. */
export async function goodputMbps(
  cluster: Cluster,
  client: PodRef,
  server: PodRef,
  serverIp: string,
  seconds: number,
): Promise<number> {
  const port = String(20_000 + Math.floor(Math.random() * 20_000));
  await mustExec(cluster, server, ['iperf3', '--server', '--one-off', '--daemon', '--port', port]);
  // A pod's first packets may wait for address resolution: the client tries again for a while.
  const args = [
    'iperf3',
    '--client',
    serverIp,
    '--port',
    port,
    '--time',
    String(seconds),
    '--omit',
    '1',
    '--json',
    '--connect-timeout',
    '5000',
  ];
  const result = await cluster.exec(client, args, (seconds + 60) * 1000);
  const report = parseReport(result.stdout);
  const bps = report.end?.sum_received?.bits_per_second;
  if (bps === undefined) {
    throw new SluiceError({
      code: 'process_failed',
      operation: 'measure from',
      object: `${client.name} to ${serverIp}`,
      what: `iperf3: ${report.error ?? result.stderr.trim()}`,
    });
  }
  return bps / 1e6;
}

interface IperfReport {
  readonly error?: string;
  readonly end?: { readonly sum_received?: { readonly bits_per_second?: number } };
}

function parseReport(stdout: string): IperfReport {
  try {
    return JSON.parse(stdout) as IperfReport;
  } catch {
    return { error: `no report (${stdout.slice(0, 200)})` };
  }
}

/** How many of `count` echo requests were answered. */
export async function pingReplies(cluster: Cluster, from: PodRef, ip: string, count: number): Promise<number> {
  const result = await cluster.exec(from, ['ping', '-n', '-c', String(count), '-i', '0.3', '-W', '2', ip], 60_000);
  const received = /(\d+) received/.exec(result.stdout)?.[1];
  if (received === undefined)
    throw new SluiceError({
      code: 'process_failed',
      operation: 'ping from',
      object: from.name,
      what: result.stderr.trim() || result.stdout.trim(),
    });
  return Number(received);
}

export interface HttpProbe {
  readonly answered: boolean;
  /** What the last attempt ended with, for a report that has to explain itself. */
  readonly ended: string;
}

/** Whether `to` answers an HTTP request with its name, in one of so many attempts: a busy machine may miss the first's 8 s. */
export async function httpProbe(cluster: Cluster, from: PodRef, to: PodView, attempts: number): Promise<HttpProbe> {
  const script = `exec 3<>/dev/tcp/${to.ip ?? ''}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 5 cat <&3`;
  let ended = 'not tried';
  for (let attempt = 0; attempt < attempts; attempt++) {
    const result = await cluster.exec(from, ['timeout', '8', 'bash', '-c', script], 60_000);
    ended = `status ${result.exitCode} ${result.stderr.trim()}`.trim();
    if (result.exitCode === 0 && result.stdout.includes(to.name)) return { answered: true, ended };
  }
  return { answered: false, ended };
}

async function mustExec(cluster: Cluster, pod: PodRef, command: readonly string[]): Promise<void> {
  const result = await cluster.exec(pod, command, 60_000);
  if (result.exitCode === 0) return;
  throw new SluiceError({
    code: 'process_failed',
    operation: 'run in pod',
    object: `${pod.namespace}/${pod.name}`,
    what: `${command.join(' ')}: ${result.stderr.trim()}`,
  });
}
