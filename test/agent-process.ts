/** A real agent as a process of its own, so that a test can kill it. argv[2]: JSON of the options that are data. */
import { pino } from 'pino';
import { startAgent, type AgentOptions } from '../src/agent/agent.ts';
import { loadKubeConfig } from '../src/kube/config.ts';

export interface AgentProcessData extends Omit<AgentOptions, 'kubeConfig' | 'log' | 'clock'> {
  readonly kubeConfigPath: string;
}

const { kubeConfigPath, ...options } = JSON.parse(process.argv[2] ?? '{}') as AgentProcessData;
const agent = await startAgent({
  ...options,
  kubeConfig: loadKubeConfig({ path: kubeConfigPath }),
  log: pino(pino.destination(2)),
});
process.stdout.write(`ready ${agent.healthUrl ?? ''}\n`);
process.once('SIGTERM', () => void agent.stop().then(() => process.exit(0)));
// A test that is killed closes the pipe: nothing of it may stay.
process.stdin.on('end', () => process.exit(1)).resume();
