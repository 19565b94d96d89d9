/** Agents of a lab inside its virtual machine: requests are made there, by curl, which every lab needs anyway. */
import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { labLayout, nodeNames, nodePaths } from '../lab/layout.ts';
import type { LabState } from '../lab/lifecycle/state.ts';
import { readLabVm, type LabVm } from '../lab/vm/lab-vm.ts';
import { runInLabVm } from '../lab/vm/lab-vm-job.ts';
import { refusal, type AgentRequest, type AgentTransport } from './agent-client.ts';

/** Emulated processors are slow, and the machine may be busy. */
const askTimeoutMs = 120_000;
const followTimeoutMs = 24 * 3_600_000;

/** One for each node. Throws vm_failed when the machine is down. */
export async function vmAgents(state: LabState): Promise<AgentTransport[]> {
  const machine = readLabVm(state.dir);
  if (machine === undefined || state.vm === undefined) throw dead(state.dir);
  // The guest's lab has an id of its own.
  const file = join(state.vm.guestDir, 'lab.json');
  const { output } = await run(machine, ['cat', file], askTimeoutMs);
  const lab = labLayout(JSON.parse(output) as LabState);
  return nodeNames(state.nodes).map((name) => vmAgent(machine, name, nodePaths(lab, name).agentSocket));
}

function vmAgent(machine: LabVm, name: string, socketPath: string): AgentTransport {
  const curl = ['curl', '-sS', '--unix-socket', socketPath];
  return {
    name,
    async ask({ method = 'GET', path, body }: AgentRequest) {
      using file = body === undefined ? undefined : sharedFile(machine, JSON.stringify(body));
      const data = file && ['-H', 'content-type: application/json', '--data-binary', `@${file.path}`];
      const command = [...curl, '-X', method, ...(data ?? []), '-w', '\n%{http_code}', `http://agent${path}`];
      const { output, errors, status } = await run(machine, command, askTimeoutMs);
      if (status !== 0) throw unavailable(name, errors);
      const end = output.lastIndexOf('\n');
      return { status: Number(output.slice(end + 1)), text: output.slice(0, end) };
    },
    follow: (path, signal) => follow(machine, name, [...curl, '-N', '-f', `http://agent${path}`], signal),
  };
}

async function* follow(
  machine: LabVm,
  name: string,
  command: readonly string[],
  signal: AbortSignal,
): AsyncIterable<string> {
  // Ending a job's reader does not end the job: its process is told to, by its number.
  using pidFile = sharedFile(machine, '');
  const chunks: string[] = [];
  let wake: () => void = () => undefined;
  let served = false;
  let ended: { readonly error?: unknown } | undefined;
  // The guest keeps what is written to the shared directory for up to half a minute unless it is told to sync.
  const lines = 'while IFS= read -r line; do printf "%s\\n" "$line"; sync -d /proc/self/fd/1; done';
  const script = `echo $$ > ${pidFile.path}; sync -d ${pidFile.path}; "$@" | ${lines}`;
  const running = run(machine, ['setsid', 'sh', '-c', script, 'sh', ...command], followTimeoutMs, signal, (text) => {
    served = true;
    chunks.push(text);
    wake();
  }).then(
    // A stream that is served begins with a sign of life.
    ({ errors }) => (ended = served || signal.aborted ? {} : { error: unavailable(name, errors) }),
    (error: unknown) => (ended = signal.aborted ? {} : { error }),
  );
  void running.then(() => wake());
  try {
    for (;;) {
      const chunk = chunks.shift();
      if (chunk !== undefined) yield chunk;
      else if (ended !== undefined) break;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    await run(machine, ['sh', '-c', `kill -- -$(cat ${pidFile.path})`], askTimeoutMs).catch(() => undefined);
  }
  if (ended.error instanceof Error) throw ended.error;
}

interface Ran {
  readonly status: number;
  readonly output: string;
  readonly errors: string;
}

async function run(
  machine: LabVm,
  command: readonly string[],
  timeoutMs: number,
  signal?: AbortSignal,
  onOutput?: (text: string) => void,
): Promise<Ran> {
  const [output, errors]: [Buffer[], Buffer[]] = [[], []];
  const status = await runInLabVm(machine, {
    ...{ command, timeoutMs, clock: systemClock },
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
    ...(signal && { signal }),
    onStdout: (chunk) => (onOutput === undefined ? output.push(chunk) : onOutput(chunk.toString('utf8'))),
    onStderr: (chunk) => errors.push(chunk),
  });
  const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('utf8');
  return { status, output: text(output), errors: text(errors).trim() };
}

/** In the one directory that both sides see at the same path. */
function sharedFile(machine: LabVm, content: string): Disposable & { readonly path: string } {
  const path = join(machine.shareDir, `ask-${randomBytes(6).toString('hex')}`);
  writeFileSync(path, content, { mode: 0o600 });
  return { path, [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

function unavailable(name: string, errors: string): SluiceError {
  if (/returned error: 4/.test(errors))
    return refusal(name, JSON.stringify({ code: 'invalid_argument', message: errors }));
  const remedy = 'sluice lab status shows which processes run';
  return new SluiceError({
    ...{ code: 'agent_unavailable', operation: 'ask', object: `the agent of ${name}` },
    what: errors === '' ? 'it does not answer' : errors,
    remedy,
  });
}

function dead(dir: string): SluiceError {
  return new SluiceError({
    ...{ code: 'vm_failed', operation: 'ask', object: `the lab in ${dir}`, what: 'its virtual machine does not run' },
    remedy: 'sluice lab down, then sluice lab up',
  });
}
